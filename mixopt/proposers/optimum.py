"""The mixture that a surrogate holds for best, and what keeps it from being better.

Shapes: n candidates, m domains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixopt.designs import STRENGTHS, cut
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.space import MixtureSpace
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import Surrogate

CANDIDATES = 2048  # drawn over the whole space
LOCAL = 512  # drawn around the best, once per strength in ZOOM
ZOOM = (30.0, 100.0, 300.0, 1e3, 3e3, 1e4)  # Dirichlet strengths: from wide steps to ±.005
KEPT = 4  # how many best ones each zoom goes on from
RISK = (
    0.5  # deviations added to the mean: doubtful optima at the rim of the data lose to known ones
)
NORMAL_90 = 1.6449

Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recommendation:
    """What a surrogate recommends.

    Attributes:
        mixture: the best mixture of the space.
        mean: predicted objective.
        std: its standard deviation (of the noise-free mean).
        interval: the central 90 % of what the objective may be there.
        unconstrained: the best mixture were there no bounds, availability or linear constraints.
        unconstrained_mean: predicted objective of it.
        binding: the constraints that hold `mixture`, a sentence each.
    """

    mixture: Mixture
    mean: float
    std: float
    interval: tuple[float, float]
    unconstrained: Mixture
    unconstrained_mean: float
    binding: list[str]


def recommend(
    surrogate: Surrogate,
    objective: Objective,
    space: MixtureSpace,
    seed: int,
    risk: float = RISK,
) -> Recommendation:
    """The mixture of `space` with the least predicted mean + risk x deviation.

    Args:
        surrogate: fitted to trials over the space's domains.
        objective: composed after prediction; lower is better.
        space: where the mixture may lie.
        seed: of the candidates; the result is a function of the arguments.
        risk: 0 trusts the mean alone, which drifts to where no trial has been.
    """

    def score(weights: np.ndarray) -> np.ndarray:
        mean, std = surrogate.predict(weights).compose(objective)
        return mean + risk * std

    with reproducible(seed):
        mixture = minimise(score, space, seed)
        free = mixture
        if space.binding(mixture):
            free = minimise(score, space.unconstrained, seed, also=mixture.array[None])
        mean, std = surrogate.predict(np.stack([mixture.array, free.array])).compose(objective)
    return Recommendation(
        mixture=mixture,
        mean=float(mean[0]),
        std=float(std[0]),
        interval=(float(mean[0] - NORMAL_90 * std[0]), float(mean[0] + NORMAL_90 * std[0])),
        unconstrained=free,
        unconstrained_mean=float(mean[1]),
        binding=space.binding(mixture),
    )


def minimise(
    score: Score, space: MixtureSpace, seed: int, also: np.ndarray | None = None
) -> Mixture:
    """The mixture with the least `score` found by sampling, then by sampling ever closer.

    No gradients, so that trees are searched as well as Gaussian processes, and every candidate
    is feasible.

    Args:
        score: weights (n, m) → what is to be small (n,).
        space: where to look.
        seed: of the candidates.
        also: (k, m) further feasible candidates.
    """
    rng = np.random.default_rng(seed)
    strengths = np.geomspace(STRENGTHS[0], 10 * STRENGTHS[1], CANDIDATES)
    natural, uniform = space.natural.array, np.full(len(space.domains), 1 / len(space.domains))
    pool = [
        space.project(np.stack([natural, uniform])),
        space.vertices(),
        space.sample_dirichlet(CANDIDATES, rng, strength=strengths, temperature=0.5),
    ]
    weights = np.concatenate(pool if also is None else [*pool, also])
    values = score(weights)
    for strength in ZOOM:
        best = weights[np.argsort(values, kind="stable")[:KEPT]]
        near = [
            space.sample_dirichlet(
                LOCAL // KEPT, rng, Mixture.from_array(space.domains, centre), strength
            )
            for centre in best
        ]
        # between the best ones: where they agree, a mean of them is often better than each
        mixed = rng.dirichlet(np.ones(len(best)), 32) @ best
        new = np.concatenate([*near, mixed])
        weights = np.concatenate([best, new])
        values = np.concatenate([np.sort(values, kind="stable")[:KEPT], score(new)])
    return cut(space, weights[np.argmin(values)])
