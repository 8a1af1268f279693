"""Gains as compute multipliers: by the baseline's curves, or its runs of several lengths."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Fidelity, Trial
from mixopt.io.trial_files import read_curve
from mixopt.selection.multiplier import Curve, Multiplier, multiplier
from mixopt.selection.results import Candidate
from mixopt.study.settings import Study


def compute_multipliers(
    study: Study, size: Fidelity, candidates: Sequence[Candidate], trials: Sequence[Trial]
) -> dict[str, Multiplier]:
    """Candidate → how many times the tokens its gain is worth; only of those that have a gain.

    Args:
        study: whose file names objective and recipe, and whose folder holds the curves.
        size: of the proxies.
        candidates: of its selection, the baseline first.
        trials: of the ledger: the baseline's from the search count too.
    """
    objective, seed = study.mixture_objective(), study.seed
    own = [
        trial
        for trial in trials
        if trial.complete
        and trial.spec.mixture.same_as(candidates[0].mixture)
        and trial.spec.fidelity.params == size.params
    ]
    several = [
        curve for curve in _lengths(objective, own) if size.tokens in curve and len(curve) > 1
    ]
    at_length = [trial for trial in own if trial.spec.fidelity == size]
    curves = [_curve(objective, read_curve(study.home, trial)) for trial in at_length]
    end = max((t for curve in curves for t in curve), default=size.tokens)
    found = {}
    for it in candidates[1:]:
        low, high = it.difference_low, it.difference_high
        if it.difference is None or it.difference >= 0 or low is None or high is None:
            continue
        if len(several) > 1:
            found[it.name] = multiplier(
                several, size.tokens, (low, high), lower_bound=False, fewest=2, seed=seed
            )
        else:
            decays = _decays(study)
            found[it.name] = multiplier(curves, end, (low, high), lower_bound=decays, seed=seed)
    return found


def _decays(study: Study) -> bool:
    """Whether the learning rate decays; of a trainer of the user's it is taken to."""
    recipe = study.proxy.recipe
    return study.trainer is not None or (recipe.decay > 0 and recipe.final_rate < 1)


def _curve(objective: Objective, points: Sequence[CurvePoint]) -> Curve:
    """Tokens → objective, all on the same text, of one training."""
    return {
        point.tokens: objective.value(point.comparable)
        for point in points
        if point.comparable.keys() >= set(objective.metrics)
    }


def _lengths(objective: Objective, trials: Sequence[Trial]) -> list[Curve]:
    """For each seed: tokens → objective at the end of a training of so many."""
    ends: dict[int, dict[int, float]] = {}
    for trial in trials:
        value = objective.of_trial(trial)
        if value is not None:
            ends.setdefault(trial.spec.seed, {}).setdefault(trial.spec.fidelity.tokens, value)
    return list(ends.values())
