"""`mixopt status`: where a study stands, read without disturbing its driver."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table

from mixopt.core.formatting import count
from mixopt.core.trials import Role, State, Trial
from mixopt.io import locks
from mixopt.io.trial_files import CHECKPOINT, read_curve, training_folder
from mixopt.pipelines.views.closing import print_reliability
from mixopt.pipelines.views.console import make_console, styled
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.settings_used import round_rows
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.pipelines.views.wording import (
    calibration,
    command,
    correction,
    duration,
    headline,
    selected_weights,
)
from mixopt.study import identity
from mixopt.study.ledger import Ledger
from mixopt.study.records import read_promotion, read_transfer, read_verdict
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import Study, load_study
from mixopt.study.stopped import read_stop

IDLE, HANDED_OUT = "no active driver", "handed out"
SHOWN = (State.COMPLETE, State.PRUNED, State.RUNNING, State.WAITING, State.FAILED)


def show_status(path: Path) -> None:
    """Print the state of the study at `path`: its driver, trials, rounds, verdict and promotion."""
    study = load_study(path)
    console = make_console()
    owner = identity.read(study.home)
    if owner is None:
        first = command("ask" if study.elsewhere else "run", path)
        console.print(f"{study.name} has not begun. Next: {first}")
        return
    holder = _holder(study.home / "driver.lock")
    console.print(styled((study.name, "bold"), f" in {study.home}: {holder}"))
    stop = read_stop(study.home)
    if stop is not None and holder == IDLE:
        console.print(f"Stopped by an error {_ago(stop.at)}: {stop.error}", soft_wrap=True)
    ledger = Ledger.read(study.ledger_url, study.name, study.mixture_objective(), owner)
    trials, rounds = ledger.trials(), ledger.rounds()
    holdout, overruled = ledger.holdout(), ledger.overruled()
    ledger.close()
    console.print(_table(study, trials))
    for trial in trials:
        if trial.replaced:
            console.print(f"  {correction(trial)}")
        if trial.held and not trial.ended:
            console.print(f"  trial {trial.number} held: {trial.message}", markup=False)
            console.print(
                f"    {command('retry', path, trial.number)}, or mixopt fail", markup=False
            )
        elif trial.state is State.RUNNING and study.elsewhere:
            console.print(f"  trial {trial.number}: {_handed_out(trial)}")
        elif trial.state is State.RUNNING:
            now = "interrupted, " if holder == IDLE else ""
            console.print(f"  trial {trial.number}: {now}{_progress(study.home, trial)}")
        elif trial.state is State.PRUNED:
            console.print(f"  trial {trial.number} pruned: {trial.message}")
        elif trial.state is State.FAILED:
            console.print(f"  trial {trial.number} {trial.failure}: {trial.message}")
    for number, proposer, surrogate, size, weights in round_rows(list(rounds.values())):
        by = proposer if surrogate == "–" else f"{proposer} on {surrogate}"
        console.print(f"  round {number}: {by}, {size} trials, {weights}")
    for line in holdout_lines(study.home, holdout, trials):
        console.print(line, markup=False)
    objective, verdict = study.mixture_objective(), read_verdict(study.home)
    weights = "" if verdict is None else selected_weights(verdict)
    for line in (
        headline(trials, objective, verdict),
        weights,
        trade_line(verdict),
        multiplier_line(verdict),
        calibration(verdict, objective),
        *transfer_lines(read_transfer(study), overruled, objective.sign),
    ):
        if line:
            console.print(line)
    print_reliability(study_reliability(study, trials), console)
    promotion = read_promotion(study.home)
    if promotion is not None:
        model = study.home / "promotion" / promotion.model
        how = promotion.method + ("" if promotion.trained else ", upcycled, not trained,")
        console.print(f"Promoted by {how} to {model}", soft_wrap=True)


def _table(study: Study, trials: Sequence[Trial]) -> Table:
    """The states and costs of the trials, a row per role."""
    table = Table()
    states = [HANDED_OUT if s is State.RUNNING and study.elsewhere else str(s) for s in SHOWN]
    costs = ("tokens",) if study.elsewhere else ("tokens", "device time")  # whose it is not known
    for column in ("role", *states, *costs):
        table.add_column(column, justify="left" if column == "role" else "right")
    for role in Role:
        mine = [t for t in trials if t.spec.role is role]
        if not mine:
            continue
        counted = Counter(t.state for t in mine)
        cost = [t.result.cost for t in mine if t.result is not None]
        spent = [count(sum(c.tokens for c in cost)), duration(sum(c.device_seconds for c in cost))]
        cells = [str(counted[s]) for s in SHOWN]
        table.add_row(str(role), *cells, *spent[: len(costs)])
    return table


def _handed_out(trial: Trial) -> str:
    since = "" if trial.started is None else f" {_ago(trial.started)}"
    times = f", {trial.attempts} times by now" if trial.attempts > 1 else ""
    return f"{HANDED_OUT}{since}{times}; no result is told yet"


def _ago(at: float) -> str:
    """A moment, seconds since 1970, as date and time and how long ago it was."""
    when = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
    return f"at {when} ({duration(max(0.0, time.time() - at))} ago)"


def _holder(lock: Path) -> str:
    """The holder of the study's lock, read without taking it."""
    import fcntl

    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return IDLE
    except BlockingIOError:
        return f"driven by {locks.holder(lock)}"
    except OSError:
        return IDLE


def _progress(home: Path, trial: Trial) -> str:
    curve = read_curve(home, trial)
    done = count(curve[-1].tokens) if curve else "0"
    age = ""
    folder, proxy = training_folder(home, trial.number)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        age = f", checkpoint {duration(time.time() - checkpoint.stat().st_mtime)} old"
    if proxy >= 0:
        age += f", in cohort {folder.name}"
    return f"{done} of {count(trial.spec.fidelity.tokens)} tokens evaluated{age}"
