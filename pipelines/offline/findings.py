"""What a surrogate of finished runs says: how good it is, what to train, what each domain does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from mixopt.core.errors import SurrogateError
from mixopt.core.mixture import Mixture
from mixopt.pipelines.offline.fitted import Fitted
from mixopt.search.optimum import Recommendation, recommend
from mixopt.search.proposers.base import hellinger
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import JointSurrogate
from mixopt.surrogates.diagnostics import (
    NORMAL_90,
    OBJECTIVE,
    Choice,
    OutOfFold,
    Score,
    out_of_fold,
)
from mixopt.surrogates.effects import Effects, effects
from mixopt.surrogates.noise import SeedScatter, mixture_key, seed_scatter

FEWEST_SCORED = 4  # runs: a rank correlation of 3 is a coin thrown twice
NATURAL, PROPOSED, UNCONSTRAINED = "natural", "proposed", "unconstrained"
OBSERVED = "best_observed"  # the run with the least objective at the predicted fidelity


@dataclass(frozen=True)
class Difference:
    """How much lower the objective is at the proposed mixture than at the natural one.

    `mean` and `std` are of proposed - natural; `probability_lower` is the
    surrogate's probability that it is below 0.
    """

    mean: float
    std: float
    probability_lower: float


@dataclass(frozen=True)
class Findings:
    """All that `mixopt fit` tells.

    Attributes:
        fitted: what it was found from.
        compared: held-out score of the objective of each surrogate that was tried.
        held_out: predictions of runs that were left out; None where there are too few.
        held_out_names: run of each row of it.
        best: the proposed mixture.
        mixtures: the natural, the best observed (if a run was measured at the predicted
            fidelity), the proposed and the unconstrained one.
        means: predicted metrics and objective by mixture, a row each in the order of `mixtures`.
        stds: their standard deviations, of the noise-free mean.
        difference: of the objective, proposed - natural.
        effects: of the domains at the natural mixture.
        scatter: of a run's objective over the seeds of its mixture, at the predicted fidelity; None
            without repeats.
        notes: those of the fit, and what was found since.
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
    notes: tuple[str, ...]

    @property
    def constrained(self) -> bool:
        """Whether anything keeps the proposed mixture from the unconstrained one."""
        return bool(self.best.binding) or self.best.kl_penalty > 0


def find(fitted: Fitted, choice: Choice | None) -> Findings:
    """Hold out, recommend and take effects with the surrogate of `fitted`.

    Args:
        fitted: with its surrogate.
        choice: what the surrogate was chosen by; None where it was asked for. Its predictions of
            held-out runs are those of the report, if they are of all runs.
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
        notes += _shared_seed(fitted, scatter)
        weights = np.stack([mixture.array for mixture in mixtures.values()])
        said = surrogate.predict(weights)
        columns = [said.metrics.index(metric) for metric in fitted.metrics]
        mean, std = said.compose(objective)
        pair = [list(mixtures).index(name) for name in (NATURAL, PROPOSED)]
        difference = _difference(fitted, weights[pair], mean[pair], std[pair])
        found = effects(surrogate, objective, fitted.metrics, fitted.natural)
    return Findings(
        fitted,
        {} if choice is None else choice.scores,
        held_out,
        names,
        best,
        mixtures,
        np.column_stack([said.mean[:, columns], mean]),
        np.column_stack([said.std[:, columns], std]),
        difference,
        found,
        scatter,
        tuple(notes),
    )


def _hold_out(
    fitted: Fitted, choice: Choice | None, notes: list[str]
) -> tuple[OutOfFold | None, tuple[str, ...]]:
    """Predictions of the runs at the target fidelity, each without any run of its mixture."""
    rows = np.flatnonzero(fitted.table.at(fitted.target))
    names = tuple(fitted.names[row] for row in rows.tolist())
    if choice is not None and choice.held_out is not None:
        return choice.held_out, names
    several = fitted.make_surrogate().multi_fidelity
    # what was run at the target is foretold; of other sizes and of curves all is learned from that
    # is not of the mixtures held out
    table, at = (fitted.table, fitted.target) if several else (fitted.table.select(rows), None)
    try:
        found = out_of_fold(table, fitted.objective, fitted.make_surrogate, seed=fitted.seed, at=at)
    except SurrogateError as problem:
        of = f"{problem.where}: " if problem.where else ""
        notes.append(f"How good the predictions are is not known: {of}{problem.what}.")
        return None, ()
    if len(rows) < FEWEST_SCORED:
        notes.append(
            f"{len(rows)} runs at the predicted fidelity are too few to say how good the "
            "predictions are."
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
        f"The best run is {fitted.names[row]}: a measured objective of {value[row]:.4f}, the luck "
        "of being picked for it included."
    )
    return {OBSERVED: Mixture.from_array(fitted.domains, fitted.table.weights[row])}


def _far_away(fitted: Fitted, mixture: Mixture) -> list[str]:
    """A warning where the mixture lies further from all runs than these do from each other."""
    runs = np.unique(fitted.table.weights, axis=0)
    apart = hellinger(runs, runs)
    np.fill_diagonal(apart, np.inf)
    usual = float(np.quantile(apart.min(axis=1), 0.95))
    nearest = float(hellinger(mixture.array[None], runs).min())
    if nearest <= usual:
        return []
    return [
        f"The proposed mixture lies {nearest:.2f} (Hellinger) from the nearest run, where 95 % of "
        f"runs have one within {usual:.2f}: its prediction extrapolates; train it before you trust "
        "it."
    ]


def _seed_scatter(fitted: Fitted) -> SeedScatter | None:
    final = fitted.table.final
    final = final.select(final.at(fitted.target))
    value = fitted.objective.of_table(final)
    runs: dict[tuple[float, ...], dict[int, float]] = {}
    for row in np.flatnonzero(np.isfinite(value)).tolist():
        own = runs.setdefault(mixture_key(final.weights[row].tolist()), {})
        own.setdefault(int(final.seeds[row]), float(value[row]))
    return seed_scatter(runs.values())


def _shared_seed(fitted: Fitted, scatter: SeedScatter | None) -> list[str]:
    """What the predicted values do not know if the runs shared a seed; nothing if they did not."""
    _, counts = np.unique(fitted.table.final.seeds, return_counts=True)
    if counts.max() <= counts.sum() / 2:
        return []
    if scatter is None:
        told = "how large that is, repeats of a mixture with other seeds would tell"
    else:
        told = (
            f"the objective's seed standard deviation is {scatter.std:.4f}, from {scatter.runs} "
            "repeated runs"
        )
    return [
        "If these runs shared one seed, as the table does not rule out, predicted values are for "
        f"that seed, and their ± lacks its error: {told}. Near mixtures share it, so their "
        "differences hold."
    ]


def _difference(
    fitted: Fitted, weights: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> Difference:
    """Proposed - natural; of surrogates without a joint posterior as if they erred apart."""
    gap, variance = float(mean[1] - mean[0]), float(std[0] ** 2 + std[1] ** 2)
    if isinstance(fitted.surrogate, JointSurrogate):
        _, covariance = fitted.surrogate.joint(weights, fitted.objective)
        variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    spread = math.sqrt(max(variance, 0.0))
    if spread == 0:
        return Difference(gap, 0.0, float(gap < 0))
    return Difference(gap, spread, 0.5 * math.erfc(gap / spread / math.sqrt(2)))


def diagnostics_frame(found: Findings) -> pl.DataFrame:
    """A row per metric and one of the objective: `metric, spearman, r2, mae, coverage90, n`."""
    scores = {} if found.held_out is None else found.held_out.scores
    rows = [{"metric": metric, **score_values(score)} for metric, score in scores.items()]
    numbers = dict.fromkeys(("spearman", "r2", "mae", "coverage90"), pl.Float64)
    return pl.DataFrame(rows, schema={"metric": pl.String, **numbers, "n": pl.Int64})


def score_values(score: Score) -> dict[str, float | int]:
    """A score by the names that the files use."""
    return {
        "spearman": score.spearman,
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
    told = found.effects
    q = len(told.metrics)
    return pl.DataFrame(
        {
            "domain": np.repeat(told.domains, q).tolist(),
            "metric": list(told.metrics) * len(told.domains),
            "natural": np.repeat(told.base, q),
            "raised": np.repeat(told.raised, q),
            "change": told.change.ravel(),
            "std": told.std.ravel(),
        }
    )


def mixture_frame(found: Findings) -> pl.DataFrame:
    """A row per domain: its weight in each of the mixtures, in a column of its name."""
    columns: dict[str, Any] = {"domain": list(found.fitted.domains)}
    return pl.DataFrame(columns | {n: list(mix.weights) for n, mix in found.mixtures.items()})


def mixture_values(found: Findings) -> dict[str, Any]:
    """The mixtures with what is predicted of them, as JSON-able values."""
    names = [*found.fitted.metrics, OBJECTIVE]
    predictions = {
        mixture: {name: interval(m, s) for name, m, s in zip(names, means, stds, strict=True)}
        for mixture, means, stds in zip(
            found.mixtures, found.means.tolist(), found.stds.tolist(), strict=True
        )
    }
    return {
        "mixtures": {name: mixture.as_dict() for name, mixture in found.mixtures.items()},
        "predictions": predictions,
        "difference": {
            "mean": found.difference.mean,
            "std": found.difference.std,
            "probability_lower": found.difference.probability_lower,
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
