"""What a command has to train by a trainer of the user's, for the time that is left of it."""

from __future__ import annotations

from mixopt.core.trials import Role
from mixopt.pipelines.study.plan_trials import planned_larger, planned_trials
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.views.time_left import FULL_RUN, LARGER, TRIALS, TimeLeft
from mixopt.study.records import read_promotion


def time_left(session: Session, step: str) -> TimeLeft:
    """Counts the trainings of `mixopt search`, `select`, `promote` or `run` that are not done."""
    study, trials = session.study, session.ledger.trials()
    larger = [trial for trial in trials if trial.spec.role is Role.TRANSFER]
    others = [
        trial
        for trial in trials
        if trial.spec.role is not Role.TRANSFER
        and (step != "select" or trial.spec.role is Role.SELECT)
    ]
    own = None if study.promote is None else study.promote.trainer
    full_run = own is not None and not own.elsewhere and step in ("promote", "run")
    planned = {
        TRIALS: planned_trials(study, session.data, step) - sum(trial.ended for trial in others),
        LARGER: planned_larger(study, step) - sum(trial.ended for trial in larger),
        FULL_RUN: int(full_run and read_promotion(session.home) is None),
    }
    gpus = max(1.0, study.ray.gpus_per_trial)
    known = {
        kind: [
            trial.result.cost.device_seconds / gpus
            for trial in those
            if trial.complete and trial.result is not None
        ]
        for kind, those in ((TRIALS, others), (LARGER, larger))
    }
    return TimeLeft({kind: max(0, left) for kind, left in planned.items()}, known)
