"""Results of a fit to finished runs: held-out scores, the proposed mixture, domains' effects."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.offline.reliability import table_reliability, values_by_mixture
from mixopt.pipelines.offline.fitted import Fitted
from mixopt.search.optimum import Recommendation, recommend
from mixopt.search.proposers.base import hellinger
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.effects import Effects, effects
from mixopt.surrogates.noise import SeedScatter, seed_scatter
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import (
    OBJECTIVE,
    Choice,
    OutOfFold,
    Score,
    chained,
    out_of_fold,
)

FEWEST_SCORED = 4  # runs: a rank correlation of 3 is 1 by chance in one case of 6
NATURAL, PROPOSED, UNCONSTRAINED = "natural", "proposed", "unconstrained"
OBSERVED = "best_observed"  # the run with the best objective at the predicted fidelity


@dataclass(frozen=True)
class Difference:
    """How much the objective differs at the proposed mixture from the natural one.

    `mean` and `std` are of proposed - natural; `probability_better` is the
    surrogate's probability that the proposed one is better.
    """

    mean: float
    std: float
    probability_better: float


@dataclass(frozen=True)
class Findings:
    """All results of `mixopt fit`, with values of the objective as people read them.

    Attributes:
        fitted: the runs and the surrogate.
        compared: held-out score of the objective by surrogate; empty if one was asked for.
        held_out: out-of-fold predictions of the runs; None where there are too few.
        held_out_names: run of each row of `held_out`.
        best: the proposed mixture.
        mixtures: the natural, the best observed (if a run was measured at the predicted
            fidelity), the proposed and the unconstrained one.
        means: predicted metrics and objective by mixture, a row each in the order of `mixtures`.
        stds: their standard deviations: of the mean over runs, or of a run (`best.of_run`).
        difference: of the objective, proposed - natural.
        effects: of the domains at the natural mixture.
        scatter: seed standard deviation of the objective at the predicted fidelity; None without
            repeats.
        reliability: by metric, and of the objective, as far as repeats tell.
        notes: notes for the user, of the fit and of these results.
    """

    fitted: Fitted
    compared: dict[str, Score]
    held_out: OutOfFold | None
    held_out_names: tuple[str, ...]
    best: Recommendation
    mixtures: dict[str, Mixture]
    means: np.ndarray
    stds: np.ndarray
    difference: Difference
    effects: Effects
    scatter: SeedScatter | None
    reliability: dict[str, Reliability]
    notes: tuple[str, ...]

    @property
    def better(self) -> str:
        """`higher` or `lower`: which values of the objective are better."""
        return "higher" if self.fitted.objective.sign == -1 else "lower"

    @property
    def interval_of(self) -> str:
        """What the intervals of `stds` are intervals of: `a run` or `the mean over runs`."""
        return "a run" if self.best.of_run else "the mean over runs"

    @property
    def of_compared(self) -> Reliability | None:
        """Of the objective where `compared` was scored: of several fidelities not always known."""
        return None if chained(self.fitted.table) else self.reliability.get(OBJECTIVE)

    @property
    def constrained(self) -> bool:
        """Whether a constraint or the KL penalty moves the proposed mixture off the optimum."""
        return bool(self.best.binding) or self.best.kl_penalty > 0


def find(fitted: Fitted, choice: Choice | None) -> Findings:
    """Out-of-fold scores, the proposed mixture and effects, from the surrogate of `fitted`.

    Args:
        fitted: with its surrogate.
        choice: the comparison of surrogates; None where one was asked for. Its out-of-fold
            predictions are reported where they cover all runs.
    """
    notes = list(fitted.notes)
    surrogate, objective, seed = fitted.surrogate, fitted.objective, fitted.seed
    with reproducible(seed):
        held_out, names = _hold_out(fitted, choice, notes)
        best = recommend(surrogate, objective, fitted.space, seed)
        mixtures = {NATURAL: fitted.natural, **_best_observed(fitted, notes)}
        mixtures |= {PROPOSED: best.mixture, UNCONSTRAINED: best.unconstrained}
        notes += _far_away(fitted, best.mixture)
        scatter = _seed_scatter(fitted)
        notes += _shared_seed(fitted, scatter) or _repeats(scatter)
        if fitted.known_noise:
            notes.append(
                f"{fitted.surrogate_name} takes the noise of a run from the repeats, of "
                f"{len(fitted.known_noise)} of {len(fitted.metrics)} metrics."
            )
        weights = np.stack([mixture.array for mixture in mixtures.values()])
        prediction = surrogate.predict(weights)
        columns = [prediction.metrics.index(metric) for metric in fitted.metrics]
        mean, std = prediction.compose(objective)
        pair = [list(mixtures).index(name) for name in (NATURAL, PROPOSED)]
        difference = _difference(fitted, weights[pair], mean[pair], std[pair])
        found = effects(surrogate, objective, fitted.metrics, fitted.natural)
    sign = objective.sign
    return Findings(
        fitted,
        {} if choice is None else choice.scores,
        None if held_out is None else held_out.turned(sign),
        names,
        best.turned(sign),
        mixtures,
        np.column_stack([prediction.mean[:, columns], sign * mean]),
        np.column_stack([prediction.std[:, columns], std]),
        dataclasses.replace(difference, mean=sign * difference.mean),
        found.turned(sign),
        scatter,
        table_reliability(fitted.table, fitted.target, objective),
        tuple(notes),
    )


def _hold_out(
    fitted: Fitted, choice: Choice | None, notes: list[str]
) -> tuple[OutOfFold | None, tuple[str, ...]]:
    """Out-of-fold predictions of the runs at the target; folds keep a mixture's runs together."""
    rows = np.flatnonzero(fitted.table.at(fitted.target))
    names = tuple(fitted.names[row] for row in rows.tolist())
    if choice is not None and choice.held_out is not None:
        return choice.held_out, names
    several = fitted.make_surrogate().multi_fidelity
    # Only runs at the target are predicted; runs of other sizes and curves of the remaining
    # mixtures are learned from.
    table, at = (fitted.table, fitted.target) if several else (fitted.table.select(rows), None)
    try:
        found = out_of_fold(
            table, fitted.objective, fitted.make_without_noise, seed=fitted.seed, at=at
        )
    except SurrogateError as problem:
        of = f"{problem.where}: " if problem.where else ""
        notes.append(f"The predictions could not be tested on held-out runs: {of}{problem.what}.")
        return None, ()
    if len(rows) < FEWEST_SCORED:
        notes.append(
            f"{len(rows)} runs at the predicted fidelity are too few to test the predictions on "
            "held-out runs."
        )
        return None, ()
    return found, names


def _best_observed(fitted: Fitted, notes: list[str]) -> dict[str, Mixture]:
    value = fitted.objective.of_table(fitted.table)
    rows = np.flatnonzero(fitted.table.at(fitted.target) & np.isfinite(value))
    if not len(rows):
        return {}
    row = int(rows[value[rows].argmin()])
    notes.append(
        f"The best run is {fitted.names[row]}: measured objective "
        f"{fitted.objective.sign * value[row]:.4f}, which includes "
        "selection bias."
    )
    return {OBSERVED: Mixture.from_array(fitted.domains, fitted.table.weights[row])}


def _far_away(fitted: Fitted, mixture: Mixture) -> list[str]:
    """A warning where the mixture lies farther from all runs than these from each other."""
    runs = np.unique(fitted.table.weights, axis=0)
    apart = hellinger(runs, runs)
    np.fill_diagonal(apart, np.inf)
    usual = float(np.quantile(apart.min(axis=1), 0.95))
    nearest = float(hellinger(mixture.array[None], runs).min())
    if nearest <= usual:
        return []
    return [
        f"The proposed mixture lies {nearest:.2f} (Hellinger distance) from the nearest run; 95 % "
        f"of runs have another within {usual:.2f}. Its prediction extrapolates: train it to check."
    ]


def _seed_scatter(fitted: Fitted) -> SeedScatter | None:
    return seed_scatter(values_by_mixture(fitted.table, fitted.objective, fitted.target))


def _shared_seed(fitted: Fitted, scatter: SeedScatter | None) -> list[str]:
    """A note on seed error missing from the intervals, if most runs have the same seed."""
    _, counts = np.unique(fitted.table.final.seeds, return_counts=True)
    if counts.max() <= counts.sum() / 2:
        return []
    if scatter is None:
        size = "repeat a mixture with other seeds to measure it"
    else:
        size = (
            f"the objective's seed standard deviation is {scatter.std:.4f}, from {scatter.runs} "
            "repeated runs"
        )
    return [
        "The runs may share one seed. Then predictions are for that seed, and their ± excludes the "
        f"seed's error: {size}. Differences between similar mixtures are not affected."
    ]


def _repeats(scatter: SeedScatter | None) -> list[str]:
    if scatter is None:
        return []
    return [
        f"The objective's seed standard deviation is {scatter.std:.4f}, from {scatter.runs} "
        "repeated runs."
    ]


def _difference(
    fitted: Fitted, weights: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> Difference:
    """Proposed - natural; errors count as independent without a joint posterior."""
    gap, variance = float(mean[1] - mean[0]), float(std[0] ** 2 + std[1] ** 2)
    joint = fitted.surrogate.joint_posterior
    if joint is not None:
        _, covariance = joint.joint(weights, fitted.objective)
        variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    spread = math.sqrt(max(variance, 0.0))
    if spread == 0:
        return Difference(gap, 0.0, float(gap < 0))
    return Difference(gap, spread, 0.5 * math.erfc(gap / spread / math.sqrt(2)))


def diagnostics_frame(found: Findings) -> pl.DataFrame:
    """A row per metric and one of the objective.

    Columns: `metric, spearman, ceiling, r2, mae, coverage90, n`.
    """
    scores = {} if found.held_out is None else found.held_out.scores
    rows = [
        {"metric": metric, **score_values(score, found.reliability.get(metric))}
        for metric, score in scores.items()
    ]
    numbers = dict.fromkeys(("spearman", "ceiling", "r2", "mae", "coverage90"), pl.Float64)
    return pl.DataFrame(rows, schema={"metric": pl.String, **numbers, "n": pl.Int64})


def score_values(score: Score, of: Reliability | None) -> dict[str, float | int]:
    """A score by the names that the files use; the ceiling is NaN where it is not known."""
    return {
        "spearman": score.spearman,
        "ceiling": math.nan if of is None else of.ceiling,
        "r2": score.r2,
        "mae": score.mae,
        "coverage90": score.coverage,
        "n": score.n,
    }


def out_of_fold_frame(found: Findings) -> pl.DataFrame:
    """A row per held-out run and metric: `run, metric, observed, mean, std` (of a run)."""
    numbers = dict.fromkeys(("observed", "mean", "std"), pl.Float64)
    schema = {"run": pl.String, "metric": pl.String, **numbers}
    held = found.held_out
    if held is None:
        return pl.DataFrame(schema=schema)
    observed = np.column_stack([held.observed, held.objective_observed])
    mean = np.column_stack([held.mean, held.objective_mean])
    std = np.column_stack([held.std, held.objective_std])
    n, q = observed.shape
    values = {
        "run": np.repeat(found.held_out_names, q).tolist(),
        "metric": [*held.metrics, OBJECTIVE] * n,
        "observed": observed.ravel(),
        "mean": mean.ravel(),
        "std": std.ravel(),
    }
    return pl.DataFrame(values, schema=schema)


def effects_frame(found: Findings) -> pl.DataFrame:
    """A row per domain and metric: `domain, metric, natural, raised, change, std`."""
    result = found.effects
    q = len(result.metrics)
    return pl.DataFrame(
        {
            "domain": np.repeat(result.domains, q).tolist(),
            "metric": list(result.metrics) * len(result.domains),
            "natural": np.repeat(result.base, q),
            "raised": np.repeat(result.raised, q),
            "change": result.change.ravel(),
            "std": result.std.ravel(),
        }
    )


def mixture_frame(found: Findings) -> pl.DataFrame:
    """A row per domain: its weight in each of the mixtures, in a column of its name."""
    columns: dict[str, Any] = {"domain": list(found.fitted.domains)}
    return pl.DataFrame(columns | {n: list(mix.weights) for n, mix in found.mixtures.items()})


def mixture_values(found: Findings) -> dict[str, Any]:
    """The mixtures with their predictions, as JSON-able values; `intervals_of`: of what."""
    names = [*found.fitted.metrics, OBJECTIVE]
    predictions = {
        mixture: {name: interval(m, s) for name, m, s in zip(names, means, stds, strict=True)}
        for mixture, means, stds in zip(
            found.mixtures, found.means.tolist(), found.stds.tolist(), strict=True
        )
    }
    return {
        "mixtures": {name: mixture.as_dict() for name, mixture in found.mixtures.items()},
        "higher_is_better": found.better == "higher",
        "predictions": predictions,
        "intervals_of": found.interval_of,
        "difference": {
            "mean": found.difference.mean,
            "std": found.difference.std,
            "probability_better": found.difference.probability_better,
        },
        "seed_scatter": None if found.scatter is None else asdict(found.scatter),
        "binding": list(found.best.binding),
        "prices": dict(found.best.prices),
        "kl_to_natural": found.best.kl,
    }


def interval(mean: float, std: float) -> dict[str, float]:
    """A prediction with its central 90 % interval, for the seeds of the runs learned from."""
    half = NORMAL_90 * std
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}
