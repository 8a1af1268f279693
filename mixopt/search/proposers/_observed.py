"""What a proposer without a model recommends: the best of what was run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.search.proposers.base import hellinger


def observed(
    trials: Sequence[Trial], objective: Objective, fidelity: Fidelity
) -> dict[Mixture, float]:
    """Mixture → mean objective over its complete trials at `fidelity`, in ledger order.

    Trials that lack a metric of the objective are left out.
    """
    values: dict[tuple[int, ...], list[float]] = {}
    mixtures: dict[tuple[int, ...], Mixture] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        whole = trial.complete and all(name in trial.metrics for name in objective.metrics)
        if whole and trial.spec.fidelity == fidelity:
            key = trial.spec.mixture.key
            mixtures.setdefault(key, trial.spec.mixture)
            values.setdefault(key, []).append(objective.value(trial.metrics))
    return {mixtures[key]: float(np.mean(runs)) for key, runs in values.items()}


def best_observed(
    trials: Sequence[Trial], pool: Sequence[TrialSpec], objective: Objective, fidelity: Fidelity
) -> TrialSpec:
    """The spec of `pool` whose mixture did best at `fidelity`.

    The nearest to the best mixture where none of `pool` was run.

    Raises:
        SurrogateError: no trial is complete at `fidelity`.
    """
    values = observed(trials, objective, fidelity)
    if not values:
        raise SurrogateError(
            "no trial is complete at the fidelity asked for, so none is best",
            hint="Run the search first",
        )
    by_key = {mixture.key: value for mixture, value in values.items()}
    tried = [spec for spec in pool if spec.mixture.key in by_key]
    if tried:
        return min(tried, key=lambda spec: by_key[spec.mixture.key])
    best = min(values, key=lambda mixture: values[mixture])
    weights = np.array([spec.mixture.weights for spec in pool])
    return pool[int(hellinger(weights, best.array[None]).argmin())]
