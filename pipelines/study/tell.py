"""`mixopt tell`: results of trainings that were done elsewhere, on the study's ledger.

    mixopt tell STUDY next.csv     the file of `mixopt ask`, with a column per metric

A result is recorded once; a row without one stays handed out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.trials import Cost, Failure, Outcome, Trial, TrialResult
from mixopt.io import markers
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study import promote as promotion
from mixopt.pipelines.study.elsewhere import require_elsewhere, upcycles_first
from mixopt.pipelines.study.full_run_elsewhere import (
    FullRunWaits,
    full_run_result,
    record_full_run,
    told_outcome,
)
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.study.told import FULL_RUN, Row, read_rows
from mixopt.pipelines.study.trials import record_outcome
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.wording import correction, described
from mixopt.study.looks_taken import looks_taken
from mixopt.study.records import read_verdict
from mixopt.study.replaced import outcome_of

WEIGHT = "mixture."  # before a domain's name
SAME_WEIGHT = 1e-4  # spreadsheets round


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
    with open_session(path, trains=upcycles_first(path)) as session:
        require_elsewhere(session)
        trials = {trial.number: trial for trial in session.ledger.trials()}
        of_trials = [row for row in rows if row.trial != FULL_RUN]
        news = [told for row in of_trials if (told := _checked(session, trials, row)) is not None]
        checked = [checked_full_run(session, row) for row in rows if row.trial == FULL_RUN]
        full_run = [it for it in checked if it is not None]
        if not replace:
            _refuse_other_values([*news, *full_run], path, table)
        corrected = [told.trial.number for told in news if told.trial.ended]
        for told in news:
            _record(session, told)
        for it in full_run:
            record_full_run(it.job, it.outcome, it.before)
        waiting = sum(not trial.ended for trial in session.ledger.trials())
        session.show()
        again = sum(row.told for row in rows) - len(news) - len(full_run)
        replaced = sum(told.before is not None for told in news)
        replaced += sum(it.before is not None for it in full_run)
        session.display.say(
            f"{len(news) + len(full_run) - replaced} results recorded"
            + (f", {replaced} replaced" if replaced else "")
            + (f", {again} told before" if again else "")
            + (f", {waiting} still open" if waiting else "")
            + f". Next: {command('ask', path)}"
        )
        if corrected and read_verdict(session.home) is not None:
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

    @property
    def name(self) -> str:
        """What it tells of."""
        return f"trial {self.trial.number}"

    @property
    def before(self) -> Outcome | None:
        """What was told before; None if nothing was."""
        return outcome_of(self.trial) if self.trial.ended else None


@dataclass(frozen=True)
class ToldFullRun:
    """The same of the full run.

    Attributes:
        job: the promotion.
        outcome: what is told.
        before: what was told before; None if nothing was.
        where: file and line.
    """

    job: PromotionRun
    outcome: Outcome
    before: Outcome | None
    where: str
    name: str = "the full run"


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
    spec = trial.spec
    _compare(row, spec.seed, spec.fidelity.tokens, spec.mixture.as_dict())
    if not row.told:
        return None
    outcome = _measured(session, row, spec.fidelity.tokens)
    if trial.ended and _same(outcome_of(trial), outcome):
        return None
    return Told(trial, outcome, row.where)


def _same(before: Outcome, after: Outcome) -> bool:
    """Whether both tell the same: metrics, or a failure of any kind."""
    metrics = [None if it.result is None else dict(it.result.metrics) for it in (before, after)]
    return metrics[0] == metrics[1]


def _refuse_other_values(news: Sequence[Told | ToldFullRun], study: Path, table: Path) -> None:
    """Refuse what was told before with other values.

    Raises:
        StudyError: naming the line, both values, and the command that records the new ones.
    """
    for told in news:
        if told.before is not None:
            before, after = described(told.before), described(told.outcome)
            raise StudyError(
                f"{told.name} was told before with other values: {before}, and now {after}",
                where=told.where,
                hint=f"Take the row out; or, to correct it, "
                f"`{command('tell', study, table, '--replace')}`: the old value is kept beside it",
            )


def checked_full_run(session: Session, row: Row) -> ToldFullRun | None:
    """What `row` tells of the full run that is new; None if it tells nothing, or the same again.

    Raises:
        StudyError: no full run was handed out, or the row contradicts what was asked.
    """
    verdict, promote = read_verdict(session.home), session.study.promote
    if verdict is None or promote is None or not promote.elsewhere:
        raise StudyError(
            "no full run is asked for",
            where=row.where,
            hint="It needs a verdict, and `promote: {trainer: elsewhere}` in the study file",
        )
    job = promotion.promotion_run(session, verdict)
    waits = FullRunWaits(job)
    if not waits.handed_out:
        raise StudyError(
            "the full run that the verdict asks for now was not handed out",
            where=row.where,
            hint=f"`{command('ask', session.study.path)}` hands it out",
        )
    asked = waits.asked
    _compare(row, asked.seed, asked.tokens, asked.mixture)
    if not row.told:
        return None
    outcome = _measured(session, row, asked.tokens)
    if outcome.result is not None:
        if not row.checkpoint:
            raise StudyError(
                "the checkpoint of the full run is missing",
                where=row.where,
                hint="Write into the column `checkpoint` where it is: a path or an address",
            )
        metrics = outcome.result.metrics
        outcome = Outcome(full_run_result(asked.tokens, metrics, row.checkpoint))
    before = told_outcome(job)
    if before is not None and before == outcome:
        return None
    return ToldFullRun(job, outcome, before, row.where)


def _compare(row: Row, seed: int, tokens: int, mixture: Mapping[str, float]) -> None:
    """Refuse a row of another training than was asked for.

    Raises:
        StudyError: seed, tokens or a weight differ.
    """
    asked: dict[str, float] = {"seed": seed, "tokens": tokens}
    asked |= {f"{WEIGHT}{name}": weight for name, weight in mixture.items()}
    for name, value in row.asked.items():
        if name not in asked:
            raise StudyError(
                f"there is no domain {name.removeprefix(WEIGHT)!r}", where=f"{row.where}: {name}"
            )
        near = SAME_WEIGHT if name.startswith(WEIGHT) else 0.0
        if abs(value - asked[name]) > near:
            raise StudyError(
                f"is {value:g}, and {row.name} was asked for with {asked[name]:g}",
                where=f"{row.where}: {name}",
                hint="Tell what was asked; another training is no result of this one",
            )


def _measured(session: Session, row: Row, tokens: int) -> Outcome:
    """What `row` tells of a training of so many tokens.

    Raises:
        StudyError: a metric that the study needs is missing.
    """
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
    return Outcome(TrialResult(metrics=row.metrics, curve=(), cost=Cost(tokens=tokens)))


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
