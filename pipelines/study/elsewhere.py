"""`mixopt ask` and `mixopt tell`: trials that are trained elsewhere, on the same ledger.

    mixopt ask STUDY -n 8 --out next.csv     trials to be trained: seed, tokens, mixture
    mixopt tell STUDY next.csv               the same file, with a column per metric

A result is recorded once; a row without one stays handed out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.core.errors import StudyError
from mixopt.core.trials import Cost, Failure, Outcome, State, Trial, TrialResult
from mixopt.io import csv_files, files, markers
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.search import search
from mixopt.pipelines.study.select import select
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.study.told import Row, read_rows
from mixopt.pipelines.study.transfer import OrderLost, check_transfer
from mixopt.pipelines.study.trials import TrialsWait, record_outcome
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import Display, make_error_console
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.wording import correction, described, headline, selected_weights
from mixopt.study.looks_taken import looks_taken
from mixopt.study.records import read_verdict
from mixopt.study.replaced import outcome_of
from mixopt.study.stopped import keeping_stop

WEIGHT = "mixture."  # before a domain's name
SAME_WEIGHT = 1e-4  # spreadsheets round


def ask_trials(
    path: Path,
    most: int,
    out: Path | None = None,
    *,
    again: bool = False,
    as_json: bool = False,
) -> None:
    """Hand out up to `most` trials of the study at `path`, as a table on the console or in `out`.

    Rounds follow from the results of those before them, so that no trial of the next one is there
    until all of this one are told. After the search it hands out selection's runs; once these are
    told, it writes the verdict.

    Args:
        path: the study file, with `trainer: elsewhere`.
        most: how many trials at most.
        out: a `.csv` or `.json` file, which must not exist.
        again: hand out those first that were handed out before and not told.
        as_json: print one JSON object instead of the table, its rows under `trials`.

    Raises:
        StudyError: the study has another trainer, or `out` is there.
    """
    if out is not None and out.exists():
        raise StudyError(
            "the file is there already, perhaps with results", where=str(out), hint="Name another"
        )
    # The table may go to a pipe: what is said besides goes beside it.
    with open_session(path, Display(make_error_console())) as session:
        _require_elsewhere(session)
        session.tracker.study_started()
        waits = _next_step(session)
        if waits is None:
            write_report(session.study)
            if as_json:
                print_json({"study": session.study.name, "step": "verdict", "trials": []})
            return
        before = [trial for trial in waits.trials if trial.state is State.RUNNING]
        fresh = [trial for trial in waits.trials if trial.state is State.WAITING]
        asked = [*(before if again else []), *fresh][:most]
        if as_json:
            rows = asked_frame(asked).to_dicts()
            print_json({"study": session.study.name, "step": waits.label, "trials": rows})
        if asked:
            if out is not None or not as_json:
                _write(asked_frame(asked), out)
            for trial in asked:
                session.tracker.live(session.ledger.start(trial.number))
            session.display.say(_next_to_do(session, waits.label, asked, out))
        if pending := [trial.number for trial in before if trial not in asked]:
            session.display.say(
                f"{waits.label}: {_numbered(pending)} handed out before and not told yet "
                "(`--again` hands them out again)"
            )


def tell_results(path: Path, table: Path, *, replace: bool = False) -> None:
    """Record the results in `table` of trials that `mixopt ask` handed out.

    All rows are checked before the first is recorded.

    Args:
        path: the study file.
        table: a `.csv` or `.json` file with a row per trial: `trial`, a column per metric; or
            `failure` (and `message`) where there is no result. What `ask` wrote beside them is
            compared with what was asked.
        replace: record other values than were told before in their place; those are kept.

    Raises:
        StudyError: a row names no trial, lacks a metric, or contradicts what was asked or told.
    """
    rows = read_rows(table)
    with open_session(path) as session:
        _require_elsewhere(session)
        trials = {trial.number: trial for trial in session.ledger.trials()}
        news = [told for row in rows if (told := _checked(session, trials, row)) is not None]
        if not replace:
            _refuse_other_values(news, path, table)
        for told in news:
            _record(session, told)
        waiting = sum(not trial.ended for trial in session.ledger.trials())
        session.show()
        again = sum(row.told for row in rows) - len(news)
        replaced = sum(told.trial.ended for told in news)
        session.display.say(
            f"{len(news) - replaced} results recorded"
            + (f", {replaced} replaced" if replaced else "")
            + (f", {again} told before" if again else "")
            + (f", {waiting} still open" if waiting else "")
            + f". Next: {command('ask', path)}"
        )
        if replaced and read_verdict(session.home) is not None:
            looks = looks_taken(session.ledger, session.home)
            left = 0 if looks is None else looks.left
            session.display.warn(
                "the verdict was of the old value: the next one is another look, and "
                f"{left} {'is' if left == 1 else 'are'} left (select.looks)"
            )


@dataclass(frozen=True)
class Told:
    """A result, or the lack of one, that is to be recorded."""

    trial: Trial
    outcome: Outcome
    where: str


def asked_frame(trials: Sequence[Trial]) -> pl.DataFrame:
    """A row per trial: number, role, candidate, seed, tokens, and a column per domain."""
    return pl.DataFrame(
        [
            {
                "trial": trial.number,
                "role": str(trial.spec.role),
                "candidate": trial.spec.candidate,
                "seed": trial.spec.seed,
                "tokens": trial.spec.fidelity.tokens,
                **{f"{WEIGHT}{name}": w for name, w in trial.spec.mixture.as_dict().items()},
            }
            for trial in trials
        ]
    )


def _next_to_do(session: Session, label: str, asked: Sequence[Trial], out: Path | None) -> str:
    tell = command("tell", session.study.path, "results.csv" if out is None else out)
    metrics = (*session.objective.metrics, *(g.metric for g in session.study.guarded()))
    return (
        f"{label}: {_numbered([trial.number for trial in asked])}. Add a column per metric "
        f"({', '.join(dict.fromkeys(metrics))}), then {tell}"
    )


def _require_elsewhere(session: Session) -> None:
    if not session.study.elsewhere:
        raise StudyError(
            "the study has a trainer, which `mixopt run` starts",
            where=f"{session.study.path}: trainer",
            hint="Write `trainer: elsewhere` to train by other means",
        )


def _next_step(session: Session) -> TrialsWait | None:
    """The trials that the study waits for; None once there is a verdict, which is shown."""
    try:
        with keeping_stop(session.home, unless=TrialsWait):
            search(session)
            verdict = select(session)
            check_transfer(session, verdict)
    except TrialsWait as waits:
        return waits
    except OrderLost:
        session.show()
        write_report(session.study)
        raise
    files.keep_json(session.home / "mixture.json", verdict.mixture.as_dict())
    words = (headline((), session.objective, verdict), trade_line(verdict))
    for line in (*filter(None, words), selected_weights(verdict)):
        session.display.say(line)
    export = command("export", session.study.path, "--mixture", "json")
    session.display.say(f"Train on it: {export}, and the report is {session.home / 'report.html'}")
    return None


def _write(frame: pl.DataFrame, out: Path | None) -> None:
    if out is None:
        print(csv_files.csv_bytes(frame).decode(), end="")
    elif out.suffix == ".json":
        files.write_bytes(out, (json.dumps(frame.to_dicts(), indent=2) + "\n").encode())
    elif out.suffix == ".csv":
        files.write_bytes(out, csv_files.csv_bytes(frame))
    else:
        raise StudyError(
            f"{out.suffix or 'no'} suffix", where=str(out), hint="Name a .csv or .json file"
        )


def _checked(session: Session, trials: Mapping[int, Trial], row: Row) -> Told | None:
    """What `row` tells that is new; None if it tells nothing, or what was told before.

    Raises:
        StudyError: it contradicts what was asked.
    """
    trial = trials.get(row.trial)
    if trial is None:
        raise StudyError(
            f"the study has no trial {row.trial}",
            where=row.where,
            hint=f"See which there are: {command('status', session.study.path)}",
        )
    _compare(trial, row)
    if not row.told:
        return None
    outcome = _outcome(session, trial, row)
    if trial.ended and _same(outcome_of(trial), outcome):
        return None
    return Told(trial, outcome, row.where)


def _same(before: Outcome, after: Outcome) -> bool:
    """Whether both tell the same: metrics, or a failure of any kind."""
    metrics = [None if it.result is None else dict(it.result.metrics) for it in (before, after)]
    return metrics[0] == metrics[1]


def _refuse_other_values(news: Sequence[Told], study: Path, table: Path) -> None:
    """Refuse what was told before with other values.

    Raises:
        StudyError: naming the line, both values, and the command that records the new ones.
    """
    for told in news:
        if told.trial.ended:
            before, after = described(outcome_of(told.trial)), described(told.outcome)
            raise StudyError(
                f"trial {told.trial.number} was told before with other values: {before}, and now "
                f"{after}",
                where=told.where,
                hint=f"Take the row out; or, to correct it, "
                f"`{command('tell', study, table, '--replace')}`: the old value is kept beside it",
            )


def _compare(trial: Trial, row: Row) -> None:
    """Refuse a row of another training than was asked for.

    Raises:
        StudyError: seed, tokens or a weight differ.
    """
    spec = trial.spec
    asked: dict[str, float] = {"seed": spec.seed, "tokens": spec.fidelity.tokens}
    asked |= {f"{WEIGHT}{name}": weight for name, weight in spec.mixture.as_dict().items()}
    for name, value in row.asked.items():
        if name not in asked:
            raise StudyError(
                f"there is no domain {name.removeprefix(WEIGHT)!r}", where=f"{row.where}: {name}"
            )
        near = SAME_WEIGHT if name.startswith(WEIGHT) else 0.0
        if abs(value - asked[name]) > near:
            raise StudyError(
                f"is {value:g}, and trial {trial.number} was asked for with {asked[name]:g}",
                where=f"{row.where}: {name}",
                hint="Tell what was asked; another training is no result of this trial",
            )


def _outcome(session: Session, trial: Trial, row: Row) -> Outcome:
    if row.failure is not None:
        return Outcome(None, row.failure, row.message)
    guarded = [guardrail.metric for guardrail in session.study.guarded()]
    for name in (*session.objective.metrics, *guarded):
        if name not in row.metrics:
            what = "guardrails" if name in guarded else "objective"
            raise StudyError(
                f"metric {name!r} of the {what} is missing",
                where=row.where,
                hint="Add its column, or name a failure",
            )
    wrong = next((name for name, value in row.metrics.items() if not math.isfinite(value)), None)
    if wrong is not None:
        message = f"{wrong} is {row.metrics[wrong]}"
        return Outcome(None, Failure.DIVERGED, message)
    cost = Cost(tokens=trial.spec.fidelity.tokens)
    return Outcome(TrialResult(metrics=row.metrics, curve=(), cost=cost))


def _record(session: Session, told: Told) -> None:
    """Keep it in the trial's folder, then in the ledger."""
    number, trial = told.trial.number, told.trial
    record: dict[str, Any] = {
        "identity": session.identity(trial),
        "outcomes": [told.outcome.to_json()],
    }
    if trial.ended:
        earlier = (*trial.replaced, outcome_of(trial))
        record["replaced"] = [it.to_json() for it in earlier]
    markers.write(trial_folder(session.home, number), record)
    if trial.ended:
        replaced = session.ledger.replace(number, told.outcome)
        session.tracker.trial(replaced)
        session.display.say(correction(replaced))
    else:
        record_outcome(session, number, told.outcome)


def _numbered(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
