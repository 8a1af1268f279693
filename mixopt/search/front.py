"""What can be had of several metrics at once: the Pareto front of a study.

Shapes: n mixtures, m domains, q metrics.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
DRAWN = 1024  # mixtures that tell how far each metric moves …
MIDDLE = (0.05, 0.95)  # … from this quantile to that one
SAME = 0.02  # largest difference of a domain's weight at which two mixtures are one


@dataclass(frozen=True)
class FrontPoint:
    """A mixture at which no metric can be better without another one being worse, as predicted.

    Attributes:
        label: its name, which follows from the mixture alone, in whole percents.
        mixture: the optimum of the objective with `weights`.
        weights: metric → weight, signed as an `Objective`'s; absolute values sum to 1. Empty of
            the baseline, which is no optimum.
        mean: metric → predicted value, of guarded metrics too.
        std: metric → its standard deviation.
        own: whether it is the optimum of the objective as it is.
    """

    label: str
    mixture: Mixture
    weights: Mapping[str, float]
    mean: Mapping[str, float]
    std: Mapping[str, float]
    own: bool = False


@dataclass(frozen=True)
class Front(Sequence[FrontPoint]):
    """The points of a front, by the first metric, the best first.

    Attributes:
        points: of the front.
        baseline: the mixture to beat, predicted by the same surrogates.
        limits: guarded metric → the worst value that its guardrail allows.
    """

    points: tuple[FrontPoint, ...]
    baseline: FrontPoint
    limits: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, which: Any) -> Any:
        return self.points[which]

    def __len__(self) -> int:
        return len(self.points)


def pareto_front(
    surrogate: Surrogate,
    objective: Objective,
    space: MixtureSpace,
    seed: int,
    guards: Guards | None = None,
    risk: float = RISK,
) -> Front:
    """The optima of weighed means of the objective's metrics, of which none beats another.

    The weights are even steps of a simplex, each metric divided by how far it moves over the space,
    and the objective's own. The points are those that some weighing has as its optimum (of a front
    that bends inwards, the ends of the bend). All but the objective's own depend on its metrics and
    not on its weights: who writes a point's weights into the study file finds the same points.

    Args:
        surrogate: fitted to trials over the space's domains.
        objective: whose q metrics are traded off, at least two; its signs say which way is better.
        space: where mixtures may lie.
        seed: of the candidates; the result is a function of the arguments.
        guards: what every mixture is likely to keep to.
        risk: deviations added to the mean, as `mixopt.search.optimum.recommend` does.

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
        drawn = _drawn(surrogate, metrics, space, seed)
        signs, units = np.sign(objective.coefficients), _movement(drawn)
        lattice = [_weighed(metrics, signs * w / units) for w in _lattice(len(metrics))]
        found = [
            (each, _optimum(surrogate, each, space, seed, _scaled(guards, drawn, each), risk))
            for each in lattice
        ]
        own = _optimum(surrogate, objective, space, seed, guards, risk)
        kept = _distinct(found, (objective, own))
        rows = [space.reference, *(mixture for _, mixture in kept)]
        mean, std = _predicted(surrogate, metrics, guards, np.stack([it.array for it in rows]))
    labels = ["", *_labels(rows[1:])]
    asked: list[Mapping[str, float]] = [{}, *(each.weights for each, _ in kept)]
    baseline, *points = [
        FrontPoint(
            label, mixture, weights, _row(mean, n), _row(std, n), weights == objective.weights
        )
        for n, (label, mixture, weights) in enumerate(zip(labels, rows, asked, strict=True))
    ]
    values = signs * np.stack([mean[name] for name in metrics], axis=1)[1:]
    alone = [point for point, is_best in zip(points, nondominated(values), strict=True) if is_best]
    alone.sort(key=lambda point: signs[0] * point.mean[metrics[0]])
    return Front(tuple(alone), baseline, {} if guards is None else guards.limits)


def _optimum(
    surrogate: Surrogate,
    objective: Objective,
    space: MixtureSpace,
    seed: int,
    guards: Guards | None,
    risk: float,
) -> Mixture:
    return minimise_guarded(cautious(surrogate, objective, risk, guards), space, seed, guards)


def _scaled(guards: Guards | None, drawn: np.ndarray, weighed: Objective) -> Guards | None:
    """`guards` whose penalty is as steep as `weighed` moves over the (n, q) `drawn` predictions."""
    if guards is None:
        return None
    low, high = np.quantile(drawn @ weighed.coefficients, MIDDLE)
    return dataclasses.replace(guards, gain=float(high - low))


def _predicted(
    surrogate: Surrogate, metrics: Sequence[str], guards: Guards | None, weights: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By metric, the objective's and then guarded ones, (n,) predicted means and deviations."""
    prediction = surrogate.predict(weights)
    columns = [list(prediction.metrics).index(name) for name in metrics]
    mean = dict(zip(metrics, prediction.mean[:, columns].T, strict=True))
    std = dict(zip(metrics, prediction.std[:, columns].T, strict=True))
    if guards is not None:
        guarded_mean, guarded_std = guards.predicted(weights)
        for i, guardrail in enumerate(guards.guardrails):
            mean.setdefault(guardrail.metric, guarded_mean[:, i])
            std.setdefault(guardrail.metric, guarded_std[:, i])
    return mean, std


def _row(columns: Mapping[str, np.ndarray], row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in columns.items()}


def _labels(mixtures: Sequence[Mixture]) -> list[str]:
    """A short name per mixture, by its weights in whole percents: the same in every front."""
    digests = [
        hashlib.sha256(" ".join(f"{w:.2f}" for w in mixture.array).encode()).hexdigest()
        for mixture in mixtures
    ]
    # mixtures further apart than SAME differ in a percent, so that a length will do for all
    length = next(n for n in range(3, 65) if len({d[:n] for d in digests}) == len(digests))
    return [f"f{digest[:length]}" for digest in digests]


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


def _drawn(
    surrogate: Surrogate, metrics: Sequence[str], space: MixtureSpace, seed: int
) -> np.ndarray:
    """(n, q) predicted metrics of mixtures drawn over the space."""
    rng = np.random.default_rng(seed)
    prediction = surrogate.predict(space.sample_dirichlet(DRAWN, rng, strength=np.full(DRAWN, 3.0)))
    return prediction.mean[:, [list(prediction.metrics).index(name) for name in metrics]]


def _movement(drawn: np.ndarray) -> np.ndarray:
    """(q,) how far each metric of (n, q) `drawn` moves."""
    low, high = np.quantile(drawn, MIDDLE, axis=0)
    return np.asarray(np.maximum(high - low, 1e-12))


def _weighed(metrics: Sequence[str], weights: np.ndarray) -> Objective:
    return Objective(dict(zip(metrics, weights.tolist(), strict=True)), prefix="")


def _distinct(
    found: Sequence[tuple[Objective, Mixture]], own: tuple[Objective, Mixture]
) -> list[tuple[Objective, Mixture]]:
    """Each mixture of `found` once, and `own`: where one of `found` is near, with that mixture."""
    kept: list[tuple[Objective, Mixture]] = []
    for objective, mixture in found:
        if not any(_near(mixture, other) for _, other in kept):
            kept.append((objective, mixture))
    near = next((n for n, (_, other) in enumerate(kept) if _near(own[1], other)), None)
    if near is None:
        return [*kept, own]
    kept[near] = (own[0], kept[near][1])
    return kept


def _near(one: Mixture, other: Mixture) -> bool:
    return bool(np.abs(one.array - other.array).max() <= SAME)
