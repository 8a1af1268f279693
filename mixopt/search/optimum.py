"""The mixture that a surrogate holds for best, and what keeps it from being better.

Shapes: n candidates, m domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.search.designs import STRENGTHS, cut
from mixopt.search.guards import Guards
from mixopt.search.polish import Score, polish
from mixopt.search.proposers.base import first_apart
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import Surrogate

CANDIDATES = 2048  # drawn over the whole space
LOCAL = 512  # drawn around the best, once per strength in ZOOM
ZOOM = (30.0, 100.0, 300.0, 1e3, 3e3, 1e4)  # Dirichlet strengths: from wide steps to ±.005
STARTS = 8  # samples polished a little; 4 to 20 ended alike (RegMix, n = 32 and 64, 8 seeds)
FIRST_STEPS = 8
KEPT = 4  # of them that are polished to the end, and that each zoom goes on from
LAST_STEPS = 60
MOST_PRICED = 24  # constraints whose price is computed; each costs as much as polishing one start
APART = 0.1  # Hellinger distance between starts
RISK = (
    0.5  # deviations added to the mean: doubtful optima at the rim of the data lose to known ones
)


@dataclass(frozen=True)
class Recommendation:
    """What a surrogate recommends.

    Attributes:
        mixture: the best mixture of the space.
        mean: predicted objective.
        std: its standard deviation: of the noise-free mean, or of a run (see `of_run`).
        interval: the central 90 % of what the objective may be there, by `std`.
        unconstrained: the best mixture were there no bounds, availability or linear constraints,
            and no KL penalty.
        unconstrained_mean: predicted objective of it.
        binding: the constraints that hold `mixture`, a sentence each.
        prices: by sentence of `binding`, how much better the score (mean + risk x deviation, and
            KL penalty) could be without that one constraint; empty where there are too many.
        kl: KL(mixture || the space's reference) in nats.
        kl_penalty: what a nat of it was made to cost.
        unguarded: the best mixture were there no guardrails; None if there are none.
        unguarded_mean: predicted objective of it; the difference to `mean` is the guardrails'
            price.
        guards: by guarded metric, how much worse than the baseline's it is expected to be, and
            how much is allowed.
        of_run: whether `std` and `interval` are of one run, because the surrogate cannot separate
            a run's noise from its own error (`linear`, `quadratic`, `lightgbm`, …).
    """

    mixture: Mixture
    mean: float
    std: float
    interval: tuple[float, float]
    unconstrained: Mixture
    unconstrained_mean: float
    binding: list[str]
    prices: dict[str, float] = field(default_factory=dict)
    kl: float = 0.0
    kl_penalty: float = 0.0
    unguarded: Mixture | None = None
    unguarded_mean: float | None = None
    guards: dict[str, tuple[float, float]] = field(default_factory=dict)
    of_run: bool = False

    def turned(self, sign: int) -> Recommendation:
        """The same with `sign` (1 or -1) times its objective: as people read it."""
        if sign == 1:
            return self
        low, high = self.interval
        unguarded = self.unguarded_mean
        return replace(
            self,
            mean=-self.mean,
            interval=(-high, -low),
            unconstrained_mean=-self.unconstrained_mean,
            unguarded_mean=None if unguarded is None else -unguarded,
        )


def recommend(
    surrogate: Surrogate,
    objective: Objective,
    space: MixtureSpace,
    seed: int,
    risk: float = RISK,
    guards: Guards | None = None,
) -> Recommendation:
    """The mixture of `space` with the least predicted mean + risk x deviation + KL penalty.

    Args:
        surrogate: fitted to trials over the space's domains.
        objective: composed after prediction; lower is better.
        space: where the mixture may lie.
        seed: of the candidates; the result is a function of the arguments.
        risk: 0 trusts the mean alone, which drifts to where no trial has been.
        guards: what the mixture is likely to keep to; where no other does, it is the baseline.
    """
    score = cautious(surrogate, objective, risk, guards)
    unguarded: Mixture | None = None
    with reproducible(seed):
        if guards is not None:
            unguarded = minimise(cautious(surrogate, objective, risk), space, seed)
        mixture = minimise_guarded(score, space, seed, guards)
        free, held = mixture, space.held_by(mixture)
        prices = _prices(score, mixture, held)
        if held or space.kl_penalty > 0:
            free = minimise(score, space.unconstrained, seed, also=mixture.array[None])
        rows = [mixture.array, free.array, *([] if unguarded is None else [unguarded.array])]
        prediction = surrogate.predict(np.stack(rows))
        mean, std = prediction.compose(objective)
    return Recommendation(
        mixture=mixture,
        mean=float(mean[0]),
        std=float(std[0]),
        interval=(float(mean[0] - NORMAL_90 * std[0]), float(mean[0] + NORMAL_90 * std[0])),
        unconstrained=free,
        unconstrained_mean=float(mean[1]),
        binding=[label for label, _ in held],
        prices=prices,
        kl=float(space.kl(mixture.array[None])[0]),
        kl_penalty=space.kl_penalty,
        unguarded=unguarded,
        unguarded_mean=None if unguarded is None else float(mean[2]),
        guards={} if guards is None else guards.expected(mixture),
        of_run=prediction.holds_noise(objective),
    )


def cautious(
    surrogate: Surrogate, objective: Objective, risk: float = RISK, guards: Guards | None = None
) -> Score:
    """Weights (n, m) → predicted mean + risk x deviation + what guardrails add (n,)."""

    def score(weights: np.ndarray) -> np.ndarray:
        mean, std = surrogate.predict(weights).compose(objective)
        plain = np.asarray(mean + risk * std)
        return plain if guards is None else plain + guards.penalty(weights)

    return score


def minimise_guarded(
    score: Score, space: MixtureSpace, seed: int, guards: Guards | None
) -> Mixture:
    """As `minimise`; where guardrails are unlikely to hold there, towards the baseline from it."""
    mixture = minimise(score, space, seed)
    if guards is None:
        return mixture
    return guards.inside(mixture, space.mixture(space.project(guards.baseline.array)))


def _prices(
    score: Score, mixture: Mixture, held: Sequence[tuple[str, MixtureSpace]]
) -> dict[str, float]:
    """By constraint, how far the score falls within reach of `mixture` where it is lifted."""
    if len(held) > MOST_PRICED:
        return {}
    prices = {}
    for label, wider in held:

        def total(weights: np.ndarray, space: MixtureSpace = wider) -> np.ndarray:
            return np.asarray(score(weights) + space.penalty(weights))

        both = np.concatenate([mixture.array[None], polish(total, wider, mixture.array[None], 20)])
        before, after = total(both).tolist()
        prices[label] = max(0.0, before - after)
    return prices


def minimise(
    score: Score, space: MixtureSpace, seed: int, also: np.ndarray | None = None
) -> Mixture:
    """The mixture with the least `score`, the space's penalty added.

    Samples the space, polishes the best of the samples that are apart from each other, and the
    best of these to the end; where no start has a slope to follow, as in a score of trees, it
    samples ever closer around the best instead. Every candidate is feasible.

    On Gaussian processes of 32, 64 and 256 RegMix runs (17 domains, with and without constraints)
    all of 36 searches ended, in 1 to 3 s, where 20,000 samples with 21 polished to the end did;
    sampling ever closer alone, as before, ended .0008 to .008 nats above.

    Args:
        score: weights (n, m) → what is to be small (n,).
        space: where to look.
        seed: of the candidates.
        also: (k, m) further feasible candidates.
    """
    rng = np.random.default_rng(seed)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.asarray(score(weights) + space.penalty(weights))

    strengths = np.geomspace(STRENGTHS[0], 10 * STRENGTHS[1], CANDIDATES)
    known, uniform = space.reference.array, np.full(len(space.domains), 1 / len(space.domains))
    pool = [
        space.project(np.stack([known, uniform])),
        space.vertices(),
        space.sample_dirichlet(CANDIDATES, rng, strength=strengths, temperature=0.5),
    ]
    weights = np.concatenate(pool if also is None else [*pool, also])
    weights = weights[np.argsort(total(weights), kind="stable")]
    firsts = weights[first_apart(weights, np.empty((0, weights.shape[1])), STARTS, APART)]
    begun = polish(total, space, firsts, FIRST_STEPS)
    best = begun[np.argsort(total(begun), kind="stable")[:KEPT]]
    if (begun == firsts).all():
        best = _zoomed(total, space, rng, weights[:KEPT])
    ends = polish(total, space, best, LAST_STEPS)
    return cut(space, ends[np.argmin(total(ends))])


def _zoomed(
    total: Score, space: MixtureSpace, rng: np.random.Generator, best: np.ndarray
) -> np.ndarray:
    """(KEPT, m) the best found by sampling ever closer around `best` (KEPT, m), best first."""
    for strength in ZOOM:
        near = [
            space.sample_dirichlet(
                LOCAL // KEPT, rng, Mixture.from_array(space.domains, centre), strength
            )
            for centre in best
        ]
        # between the best ones: where they agree, a mean of them is often better than each
        mixed = rng.dirichlet(np.ones(len(best)), 32) @ best
        weights = np.concatenate([best, *near, mixed])
        best = weights[np.argsort(total(weights), kind="stable")[:KEPT]]
    return best
