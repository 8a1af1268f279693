"""What is asked of a study's trials in more than one place, each with one answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, Role, Trial

SEARCH_ROLES = (Role.DESIGN, Role.REPEAT, Role.ENQUEUED, Role.SEARCH)


def search_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that the search may learn from.

    Held-out ones and selection's are left out, so that a search that is made longer afterwards
    proposes what it would have proposed at once, and so that the gate's seeds stay fresh.
    """
    return [t for t in trials if t.spec.role in SEARCH_ROLES]


def usual_fidelity(trials: Sequence[Trial]) -> Fidelity | None:
    """The most frequent fidelity of the search's complete trials; None if there are none."""
    searched = Counter(t.spec.fidelity for t in search_trials(trials) if t.complete)
    return searched.most_common(1)[0][0] if searched else None


def best_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The complete trial of the search with the least objective, of several the first; or None."""
    scored = [
        (value, trial.number, trial)
        for trial in search_trials(trials)
        if (value := objective.of_trial(trial)) is not None
    ]
    return min(scored)[2] if scored else None


@dataclass(frozen=True)
class SearchStep:
    """A complete trial of the search, and where the search stood when it was recorded.

    Attributes:
        trial: with a measured objective.
        value: its objective.
        best: the least objective so far.
        spent: by all trials up to this one, pruned ones included.
    """

    trial: Trial
    value: float
    best: float
    spent: Cost


def search_progress(trials: Sequence[Trial], objective: Objective) -> list[SearchStep]:
    """The search's complete trials by number, each with the best value and the cost so far."""
    steps: list[SearchStep] = []
    best, spent = math.inf, Cost()
    for trial in sorted(search_trials(trials), key=lambda t: t.number):
        if trial.result is None:
            continue
        spent = spent.plus(trial.result.cost)
        if (value := objective.of_trial(trial)) is not None:
            best = min(best, value)
            steps.append(SearchStep(trial, value, best, spent))
    return steps
