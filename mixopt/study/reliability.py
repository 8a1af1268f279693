"""The reliability of a study's metrics: from its repeats, over the mixtures of its search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.study.queries import search_trials, usual_fidelity
from mixopt.study.settings import Study
from mixopt.surrogates.noise import runs_by_mixture, seed_scatter_of
from mixopt.surrogates.reliability import Reliability, reliability
from mixopt.surrogates.scoring import OBJECTIVE


def study_reliability(study: Study, trials: Sequence[Trial]) -> dict[str, Reliability]:
    """By metric of the objective and of guardrails, and `objective`, as far as it is known.

    The signal is over the mixtures of the search's complete trials; the noise is from the
    baseline's repeats and, once they have run, selection's seeds.

    Args:
        study: weighs and guards metrics.
        trials: of its ledger.
    """
    guarded = (guardrail.metric for guardrail in study.guarded())
    return reliabilities(trials, study.mixture_objective(), guarded)


def reliabilities(
    trials: Sequence[Trial], objective: Objective, guarded: Iterable[str] = ()
) -> dict[str, Reliability]:
    """The same of the metrics of `objective`, of those `guarded`, and of `objective`, the last."""
    fidelity = usual_fidelity(trials)
    if fidelity is None:
        return {}
    asked = {name: Objective({name: 1.0}, prefix="") for name in (*objective.metrics, *guarded)}
    found = {}
    for name, value in (asked | {OBJECTIVE: objective}).items():
        runs = runs_by_mixture(search_trials(trials), value, fidelity)
        known = reliability(runs.values(), seed_scatter_of(trials, value, fidelity))
        if known is not None:
            found[name] = known
    return found
