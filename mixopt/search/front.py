"""What can be had of several metrics at once: the Pareto front of a study.

Shapes: n mixtures, m domains, q metrics.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.search.guards import Guards
from mixopt.search.optimum import RISK, cautious, minimise_guarded
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import Surrogate

STEPS = {2: 8, 3: 4}  # parts that the weights are cut into: 9 and 15 weighings
FEW_STEPS = 2  # of more metrics: each alone and every pair, so that 6 metrics have 21
LEAST = 0.02  # weight of a metric at the end of the front: it breaks ties
DRAWN = 1024  # mixtures that tell how far each metric moves
SAME = 0.02  # largest difference of a domain's weight at which two mixtures are one


@dataclass(frozen=True)
class FrontPoint:
    """A mixture at which no metric can be better without another one being worse, as predicted.

    Attributes:
        mixture: the optimum of the objective with `weights`.
        weights: metric → weight, signed as an `Objective`'s; absolute values sum to 1.
        mean: metric → predicted value.
        std: metric → its standard deviation.
    """

    mixture: Mixture
    weights: Mapping[str, float]
    mean: Mapping[str, float]
    std: Mapping[str, float]


def pareto_front(
    surrogate: Surrogate,
    objective: Objective,
    space: MixtureSpace,
    seed: int,
    guards: Guards | None = None,
    risk: float = RISK,
) -> list[FrontPoint]:
    """The optima of weighed means of the objective's metrics, of which none beats another.

    The weights are even steps of a simplex, each metric divided by how far it moves over the space,
    and the objective's own. The points are those that some weighing has as its optimum (of a front
    that bends inwards, the ends of the bend).

    Args:
        surrogate: fitted to trials over the space's domains.
        objective: whose q metrics are traded off, at least two; its signs say which way is better.
        space: where mixtures may lie.
        seed: of the candidates; the result is a function of the arguments.
        guards: what every mixture is likely to keep to.
        risk: deviations added to the mean, as `mixopt.search.optimum.recommend` does.

    Returns:
        Ordered by the first metric, the best first.

    Raises:
        StudyError: the objective has one metric.
    """
    metrics = objective.metrics
    if len(metrics) < 2:
        raise StudyError(
            f"there is nothing to trade off: {metrics[0]} is the only metric",
            where="objective",
            hint="Give another metric a weight in the study file's objective",
        )
    with reproducible(seed):
        units = _movement(surrogate, metrics, space, seed)
        signs = np.sign(objective.coefficients)
        asked = [objective, *(_weighed(metrics, signs * w / units) for w in _lattice(len(metrics)))]
        scores = [cautious(surrogate, each, risk, guards) for each in asked]
        found = [minimise_guarded(score, space, seed, guards) for score in scores]
        mixtures = _distinct(list(zip(asked, found, strict=True)))
        prediction = surrogate.predict(np.stack([mixture.array for _, mixture in mixtures]))
    columns = [list(prediction.metrics).index(name) for name in metrics]
    mean, std = prediction.mean[:, columns], prediction.std[:, columns]
    points = [
        FrontPoint(
            mixture,
            weighed.weights,
            dict(zip(metrics, mean[row].tolist(), strict=True)),
            dict(zip(metrics, std[row].tolist(), strict=True)),
        )
        for row, (weighed, mixture) in enumerate(mixtures)
    ]
    kept = [p for p, alone in zip(points, nondominated(mean * signs), strict=True) if alone]
    return sorted(kept, key=lambda p: signs[0] * p.mean[metrics[0]])


def nondominated(values: np.ndarray) -> np.ndarray:
    """(n,) which rows of `values` (n, q), lower is better, no other row is at least as good as.

    A row that is at least as good in every column, and better in one, dominates.

    >>> nondominated(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]])).tolist()
    [True, True, False]
    """
    no_worse = (values[None] <= values[:, None]).all(axis=2)
    better = (values[None] < values[:, None]).any(axis=2)
    return np.asarray(~np.any(no_worse & better, axis=1))


def _lattice(q: int) -> Iterator[np.ndarray]:
    """(q,) weights that sum to 1, in even steps; those at the rim have `LEAST` in place of 0."""
    steps = STEPS.get(q, FEW_STEPS)
    for counts in itertools.product(range(steps + 1), repeat=q):
        if sum(counts) == steps:
            raised = np.maximum(np.array(counts) / steps, LEAST)
            yield raised / raised.sum()


def _movement(
    surrogate: Surrogate, metrics: Sequence[str], space: MixtureSpace, seed: int
) -> np.ndarray:
    """(q,) how far each metric moves: from the 5th to the 95th percentile over the space."""
    rng = np.random.default_rng(seed)
    prediction = surrogate.predict(space.sample_dirichlet(DRAWN, rng, strength=np.full(DRAWN, 3.0)))
    columns = [list(prediction.metrics).index(name) for name in metrics]
    low, high = np.quantile(prediction.mean[:, columns], (0.05, 0.95), axis=0)
    return np.asarray(np.maximum(high - low, 1e-12))


def _weighed(metrics: Sequence[str], weights: np.ndarray) -> Objective:
    return Objective(dict(zip(metrics, weights.tolist(), strict=True)), prefix="")


def _distinct(found: Sequence[tuple[Objective, Mixture]]) -> list[tuple[Objective, Mixture]]:
    """Those whose mixture does not come before already."""
    kept: list[tuple[Objective, Mixture]] = []
    for objective, mixture in found:
        if all(np.abs(mixture.array - other.array).max() > SAME for _, other in kept):
            kept.append((objective, mixture))
    return kept
