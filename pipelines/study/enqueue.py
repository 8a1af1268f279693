"""Mixtures that must be tried, each recorded once: `search.enqueue`.

They run before the next round is proposed. What is added to the study file later runs at the next
`mixopt run`, and counts as known from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role, Trial, TrialSpec
from mixopt.pipelines.study.pruned import pruning_limits
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.queries import search_trials


def run_enqueued(session: Session) -> None:
    """Train the enqueued mixtures of which the search has no trial, and end those begun.

    New ones carry the number of the last round that was asked for: the next one learns from them.

    Raises:
        StudyError: one is no mixture of the space.
    """
    trials = search_trials(session.ledger.trials())
    last = max(session.ledger.rounds(), default=0)
    before = [t for t in trials if t.spec.role is not Role.ENQUEUED or t.spec.round < last]
    mixtures = enqueued_mixtures(session.study, session.space)
    fresh = [
        TrialSpec(mixture, session.fidelity, session.study.seed, Role.ENQUEUED, last)
        for mixture in mixtures
        if _trial_of(session, mixture, trials) is None
    ]
    limits = pruning_limits(session, [t for t in before if t.ended]) if fresh else None
    added = add_missing(session.ledger, session.space, fresh, limits)
    begun = [t for t in trials if t.spec.role is Role.ENQUEUED]
    if added or begun:
        run_trials(session, "enqueued mixtures", [*begun, *added])


def missing_enqueued(session: Session) -> int:
    """How many enqueued mixtures have no trial of the search that has ended."""
    trials = search_trials(session.ledger.trials())
    found = [
        _trial_of(session, mixture, trials)
        for mixture in enqueued_mixtures(session.study, session.space)
    ]
    return sum(trial is None or not trial.ended for trial in found)


def _trial_of(session: Session, mixture: Mixture, trials: Sequence[Trial]) -> Trial | None:
    """The search's trial of `mixture` with its own seed and size; None if there is none."""
    asked = (session.fidelity, session.study.seed)
    return next(
        (
            t
            for t in trials
            if (t.spec.fidelity, t.spec.seed) == asked and t.spec.mixture.same_as(mixture)
        ),
        None,
    )
