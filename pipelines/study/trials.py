"""Trials of a study: added to the ledger once, trained in cohorts, recorded as each ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.errors import StudyError, TrainingError
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Failure, Limits, Outcome, Role, State, Trial, TrialSpec
from mixopt.io.trial_files import read_curve, trial_folder
from mixopt.pipelines.study.cohorts import Cohort
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.training import Training, train
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.time_left import LARGER, TRIALS
from mixopt.study.ledger import Ledger
from mixopt.workers.proxy_task import Home

if TYPE_CHECKING:
    from mixopt.workers import driver


def add_missing(
    ledger: Ledger,
    space: MixtureSpace,
    specs: Sequence[TrialSpec],
    limits: Limits | None = None,
) -> list[Trial]:
    """The trials of `specs`: those that the ledger has already, and new ones for the rest.

    A driver that was killed between two additions adds what is missing and nothing twice.

    Args:
        ledger: of the study.
        space: of the study.
        specs: what is asked for.
        limits: new trials are pruned beyond them, except those that `never_pruned` names.
    """
    free = {trial.number: trial for trial in ledger.trials()}
    trials = []
    for spec in specs:
        same = next((trial for trial in free.values() if _same(trial.spec, spec)), None)
        if same is not None:
            del free[same.number]
        whole = never_pruned(spec, space)
        trials.append(same or ledger.add(spec, None if whole else limits))
    return trials


def _same(one: TrialSpec, other: TrialSpec) -> bool:
    """Whether they ask for the same training: shapes of one size are told apart by their names."""
    return one.same_as(other) and one.fidelity.model == other.fidelity.model


def never_pruned(spec: TrialSpec, space: MixtureSpace) -> bool:
    """Whether everything is compared with the trial, so that it is trained to its end.

    True of the baseline (or the nearest mixture in `space`), its repeats, held-out trials, and
    selection's runs.
    """
    baseline = space.mixture(space.reference.array)
    whole = (Role.REPEAT, Role.HOLDOUT, Role.SELECT, Role.TRANSFER)
    return spec.role in whole or spec.mixture.same_as(baseline)


def run_trials(
    session: Session, label: str, trials: Sequence[Trial], flops: float | None = None
) -> list[Trial]:
    """Train the trials that have not ended, and record each as it ends.

    A cohort that is out of memory for good is halved once the others have ended.

    Args:
        session: of the study.
        label: of the step.
        trials: what is to be trained.
        flops: of each; those of a proxy if not given.

    Returns:
        The trials as the ledger has them now, all ended.

    Raises:
        CorpusError: a worker met bad data.
        TrainingError: a worker crashed, or was lost too often.
    """
    todo = [trial for trial in trials if not trial.ended]
    flops = session.trial_flops if flops is None else flops
    if not todo:
        session.display.skip(flops * len(trials))
        return list(trials)
    if held := [trial for trial in todo if trial.held]:
        raise held_error(session, [trial.number for trial in held], held[0].message)
    if session.study.elsewhere:
        return _told(session, label, trials)
    session.connect()
    cohorts = session.cohorts(todo)
    ended = {str(trial.number): flops for trial in trials if trial.ended}
    kind = TRIALS if flops == session.trial_flops else LARGER
    with session.display.phase(label, flops * len(trials), len(trials), ended, kind):
        while cohorts:
            trainings = [CohortTraining(session, cohort, flops) for cohort in cohorts]
            train(trainings, session.resources, session.display)
            cohorts = [half for training in trainings for half in training.halves]
    return [session.ledger.trial(trial.number) for trial in trials]


class TrialsWait(StudyError):
    """Trials are trained elsewhere, and their results are not told yet.

    Attributes:
        label: of the step.
        trials: those that have not ended.
    """

    def __init__(self, label: str, trials: Sequence[Trial], study: Path) -> None:
        self.label, self.trials = label, list(trials)
        handed_out = sum(trial.state is State.RUNNING for trial in trials)
        super().__init__(
            f"{label}: {len(trials)} trials are not told yet, {handed_out} of them handed out",
            where=str(study),
            hint=f"`{command('ask', study)}` hands trials out, `mixopt tell` takes their results",
        )


def _told(session: Session, label: str, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, all ended: those that a lost ledger forgot are taken up from their folders.

    Raises:
        TrialsWait: some are not told yet.
    """
    for trial in trials:
        home = Home(str(trial_folder(session.home, trial.number)), session.identity(trial))
        if not trial.ended and (outcome := home.outcome()) is not None:
            record_outcome(session, trial.number, outcome)
    now = [session.ledger.trial(trial.number) for trial in trials]
    if waiting := [trial for trial in now if not trial.ended]:
        raise TrialsWait(label, waiting, session.study.path)
    return now


def record_outcome(session: Session, number: int, outcome: Outcome) -> None:
    """Record what became of trial `number` in the ledger, and show it in MLflow."""
    ledger, tracker, display = session.ledger, session.tracker, session.display
    result = outcome.result
    if result is None:
        why = outcome.failure or Failure.CRASHED
        tracker.live(ledger.fail(number, why, outcome.message))
        about = f": {outcome.message}" if outcome.message else ""
        display.warn(f"trial {number} {why}{about}; it counts as no score")
    elif outcome.pruned:
        tracker.live(ledger.prune(number, result, outcome.message))
        display.say(f"trial {number} is pruned: {outcome.message}")
    else:
        tracker.live(ledger.complete(number, result))


class CohortTraining(Training):
    """A cohort's training; its trials are recorded in the ledger and shown in MLflow.

    Args:
        session: of the study.
        cohort: which trials, and their work.
        flops: of one trial.
    """

    def __init__(self, session: Session, cohort: Cohort, flops: float) -> None:
        several = "s" if len(cohort.trials) > 1 else ""
        super().__init__(
            cohort.work,
            label=f"trial{several} {cohort.work.key}",
            tokens=cohort.trials[0].spec.fidelity.tokens,
            proxies=len(cohort.trials),
            bars={str(number): flops for number in cohort.pending},
        )
        self._session, self._cohort = session, cohort
        self.halves: list[Cohort] = []
        """What is to be trained in its place, where it was too large."""
        self._reported: dict[int, int] = {}  # trial → points of its curve that the ledger has
        self._running: dict[int, Trial] = {}

    def started(self) -> None:
        """Count an attempt at each of its trials."""
        for number in self._cohort.pending:
            self._running[number] = self._session.ledger.start(number)
            self._session.tracker.live(self._running[number])

    def progressed(self) -> None:
        """Give the ledger, and MLflow, the evaluations since the last time."""
        for number, trial in self._running.items():
            curve = read_curve(self._session.home, trial)
            known = self._reported.get(number, 0)
            if len(curve) > known:
                self._session.ledger.report(number, curve[known:])
                self._session.tracker.live(trial, curve[known:])
                self._reported[number] = len(curve)

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Record each trial that had not ended."""
        for trial, outcome in zip(self._cohort.trials, outcomes, strict=True):
            if not trial.ended:
                record_outcome(self._session, trial.number, outcome)

    def failed(self, event: driver.Failed) -> None:
        """Note the attempt, halve the cohort, or record or hold its trials.

        Raises:
            TrainingError: its worker was lost too often.
        """
        pending, display = self._cohort.pending, self._session.display
        if not event.final:
            for number in pending:
                self._session.ledger.note(number, event.message)
            why = "its node was lost" if event.node_lost else event.failure
            display.warn(f"{self.label}: {why}, trying again")
        elif event.failure is Failure.OUT_OF_MEMORY and len(pending) > 1:
            self.halves = self._session.packing.halve(self._cohort)
            display.warn(f"{self.label} are out of memory together: they train in halves")
        elif event.failure is Failure.WORKER_LOST:
            for number in pending:
                self._session.ledger.hold(number, event.message)
            raise held_error(self._session, pending, event.message)
        else:
            for number in pending:
                self._fail(number, event.failure, event.message)
                display.warn(f"trial {number} failed: {event.failure}")

    def _fail(self, number: int, failure: Failure, message: str) -> None:
        self._session.tracker.live(self._session.ledger.fail(number, failure, message))


def held_error(session: Session, numbers: Sequence[int], message: str) -> TrainingError:
    """The error of trials that lost their worker too often, with the commands that decide."""
    study: Path = session.study.path
    named = " ".join(map(str, numbers))
    return TrainingError(
        f"trial {named} lost its worker {session.resources.attempts} times: {message.rstrip('.')}",
        where=str(trial_folder(session.home, numbers[0])),
        hint=f"Remove the cause, then `{command('retry', study, *numbers)}` (or "
        f"`{command('fail', study, *numbers)}` to continue without), and run the command again",
    )
