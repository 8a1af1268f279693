"""`mixopt status`: where a study stands, read without disturbing its driver."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count, duration
from mixopt.core.trials import Role, State, Trial
from mixopt.pipelines.study.standing import (
    HANDED_OUT,
    HELD,
    INTERRUPTED,
    Standing,
    read_standing,
    tokens_and_age,
)
from mixopt.pipelines.views.closing import print_reliability
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import make_console, styled
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.settings_used import round_rows
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.pipelines.views.wording import calibration, correction, headline, selected_weights
from mixopt.study.records import read_transfer
from mixopt.study.reliability import study_reliability
from mixopt.study.watched import read_watched

IDLE = "no active driver"
ALWAYS = (State.COMPLETE, State.RUNNING, State.WAITING, State.FAILED)  # columns, also where all 0


def show_status(path: Path, *, as_json: bool = False) -> None:
    """Print the state of the study at `path`: its driver, stage, trials, verdict and promotion.

    Args:
        path: the study file.
        as_json: print one JSON object.

    Raises:
        LedgerError: its ledger cannot be reached, or is another folder's.
    """
    standing = read_standing(path)
    if as_json:
        print_json(standing.to_json())
    else:
        print_standing(standing, make_console())


def print_standing(standing: Standing, console: Console, most: int | None = None) -> None:
    """Print where a study stands: first what is going on, then trials, then what was found.

    Args:
        standing: of the study.
        console: where to.
        most: lines of single trials, the last ones; all if not given.
    """
    study, path = standing.study, standing.file
    if not standing.begun:
        console.print(f"{study.name} has not begun. Next: {standing.next_command}")
        return
    held_by = IDLE if standing.driver is None else f"driven by {standing.driver}"
    console.print(styled((study.name, "bold"), f" in {study.home}: {held_by}"))
    console.print(_stage_line(standing), soft_wrap=True)
    if standing.stop is not None:
        stop = standing.stop
        console.print(f"Stopped by an error {_ago(stop.at)}: {stop.error}", soft_wrap=True)
    console.print(_table(standing))
    console.print(_spent_line(standing))
    lines = trial_lines(standing)
    left_out = 0 if most is None else max(0, len(lines) - most)
    if left_out:
        console.print(f"  … {left_out} earlier lines: {command('status', path)}", soft_wrap=True)
    for line in lines[left_out:]:
        console.print(f"  {line}")
    for number, proposer, surrogate, size, weights in round_rows(list(standing.rounds)):
        by = proposer if surrogate == "–" else f"{proposer} on {surrogate}"
        console.print(f"  round {number}: {by}, {size} trials, {weights}")
    _print_findings(standing, console)
    if standing.next_command:
        console.print(styled(("Next: ", "bold"), standing.next_command), soft_wrap=True)
    elif standing.done:
        console.print(styled(("Next: ", "bold"), command("report", path)), soft_wrap=True)


def _print_findings(standing: Standing, console: Console) -> None:
    """Print what the study found so far."""
    study, trials, verdict = standing.study, standing.trials, standing.verdict
    for line in holdout_lines(study.home, standing.holdout, trials, standing.objective):
        console.print(line)
    objective = standing.objective
    for line in (
        headline(trials, objective, verdict, study.search.repeats),
        _best_line(standing),
        "" if verdict is None else selected_weights(verdict),
        trade_line(verdict),
        multiplier_line(verdict),
        calibration(verdict, objective),
        *transfer_lines(read_transfer(study), standing.overruled, objective.sign),
    ):
        if line:
            console.print(line)
    print_reliability(study_reliability(study, trials), console)
    promotion, full_run = standing.promotion, standing.full_run
    if promotion is not None:
        model = study.home / "promotion" / promotion.model
        how = promotion.method + ("" if promotion.trained else ", upcycled, not trained,")
        how += " and your own trainer" * (promotion.by_trainer and promotion.receipt is not None)
        last = "" if full_run is None else " (the last full run that ended)"
        line = f"Promoted by {how} to {model}{last}"
        if promotion.checkpoint:
            line = f"Promoted: trained elsewhere, its checkpoint at {promotion.checkpoint}{last}"
        console.print(styled(line), soft_wrap=True)
        for finding in read_watched(study.home / "promotion" / promotion.id).findings:
            console.print(styled(("!", "yellow"), f" while it trained: {finding}"))
    if full_run is not None and full_run.handed_out is not None:
        when = _ago(full_run.handed_out)
        console.print(f"Full run {full_run.id} is handed out {when}; no result is told yet")
    elif full_run is not None:
        now = "interrupted" if standing.driver is None else "under way"
        stages = ", ".join(full_run.lines) or "nothing trained yet"
        console.print(f"Full run {full_run.id} is {now}: {stages}")
        for warning in full_run.warnings:
            console.print(styled(("!", "yellow"), f" {warning}"))


def _stage_line(standing: Standing) -> str:
    progress = standing.progress
    if progress is None:
        return f"Stage: {standing.stage}"
    line = f"Stage: {progress.stage}, {progress.done} of {progress.of} trainings ended"
    if progress.planned:
        line += f"; {progress.flops / progress.planned:.0%} of what this command trains at most"
    if progress.seconds_left is not None:
        line += f", about {duration(progress.seconds_left)} left"
        if progress.untimed:
            line += f"; the time of {', '.join(progress.untimed)} is not known yet"
    elif progress.untimed:
        line += "; how long it takes is known once a training has ended"
    return line


def _spent_line(standing: Standing) -> str:
    spent = standing.spent
    line = f"Spent on trials: {count(spent.tokens)} tokens"
    if not standing.study.elsewhere:  # whose time it is not known
        line += f", {duration(spent.device_seconds)} of device time"
    promotion = standing.promotion
    if promotion is not None and promotion.trained:
        line += f"; on the promotion: {count(promotion.tokens)} tokens"
        if not promotion.checkpoint:  # else whose time it is not known
            line += f", {duration(promotion.device_seconds)}"
    return line


def _best_line(standing: Standing) -> str:
    """The best trial's interval; empty once there is a verdict, which has better ones."""
    best = standing.best()
    if standing.verdict is not None or best is None or best.interval is None:
        return ""
    low, high = best.interval
    return (
        f"Trial {best.trial}: 90 % for its mean over seeds is between {low:.4f} and {high:.4f}, "
        "not allowing for selection bias: the best of many runs was lucky too."
    )


def trial_lines(standing: Standing) -> list[str]:
    """What is to be said of single trials, by number."""
    return [line for trial in standing.trials for line in _trial_lines(standing, trial)]


def _trial_lines(standing: Standing, trial: Trial) -> list[str]:
    """What is to be said of a trial that is open, or ended otherwise than complete."""
    path, number, state = standing.file, trial.number, standing.states[trial.number]
    lines = [correction(trial)] if trial.replaced else []
    if state == HELD:
        lines.append(f"trial {number} held: {trial.message}")
        lines.append(f"  {command('retry', path, number)}, or mixopt fail")
    elif state == HANDED_OUT:
        lines.append(f"trial {number}: {_handed_out(trial)}")
    elif state in (State.RUNNING, INTERRUPTED):
        now = f"{INTERRUPTED}, " if state == INTERRUPTED else ""
        lines.append(f"trial {number}: {now}{_evaluated(standing, trial)}")
    elif state == State.PRUNED:
        lines.append(f"trial {number} pruned: {trial.message}")
    elif state == State.FAILED:
        lines.append(f"trial {number} {trial.failure}: {trial.message}")
    return lines


def _table(standing: Standing) -> Table:
    """The states and costs of the trials, a row per role; rare states only where one is in them."""
    elsewhere, counts = standing.study.elsewhere, standing.counted()
    instead = {str(State.RUNNING)} if elsewhere else set()
    states = [s for s, n in counts.items() if n or (s in ALWAYS and s not in instead)]
    if elsewhere and HANDED_OUT not in states:
        states.insert(1, HANDED_OUT)
    costs = ("tokens",) if elsewhere else ("tokens", "device time")  # whose it is not known
    table = Table()
    for column in ("role", *states, *costs):
        table.add_column(column, justify="left" if column == "role" else "right")
    for role in Role:
        mine = [t for t in standing.trials if t.spec.role is role]
        if not mine:
            continue
        counted = standing.counted(role)
        cost = [t.result.cost for t in mine if t.result is not None]
        spent = [count(sum(c.tokens for c in cost)), duration(sum(c.device_seconds for c in cost))]
        table.add_row(str(role), *(str(counted[s]) for s in states), *spent[: len(costs)])
    return table


def _handed_out(trial: Trial) -> str:
    since = "" if trial.started is None else f" {_ago(trial.started)}"
    times = f", {trial.attempts} times by now" if trial.attempts > 1 else ""
    return f"{HANDED_OUT}{since}{times}; no result is told yet"


def _ago(at: float) -> str:
    """A moment, seconds since 1970, as date and time and how long ago it was."""
    when = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
    return f"at {when} ({duration(max(0.0, time.time() - at))} ago)"


def _evaluated(standing: Standing, trial: Trial) -> str:
    tokens, age, cohort = tokens_and_age(standing.study.home, trial)
    line = f"{count(tokens)} of {count(trial.spec.fidelity.tokens)} tokens evaluated"
    line += "" if age is None else f", checkpoint {duration(age)} old"
    return line + (f", in cohort {cohort}" if cohort else "")
