"""Mixtures worth a closer look, found anywhere in a space: what an acquisition chooses from.

Shapes: c candidates, s starts, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity
from mixopt.search.designs import STRENGTHS, TEMPERATURE
from mixopt.search.proposers._improvement import marginal_log_improvement
from mixopt.search.proposers.base import first_apart
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import JointSurrogate, Prediction

DRAWN = 2048  # over the space; fewer where a prediction is slow
WORK = 4e11  # n² x q x candidates: about ten seconds of one core
KEPT = 128  # the best of all by each of five scores, many of them the same
# How many deviations a start's mean is lowered by while it climbs. Where improvement is largest,
# the gradients of mean and deviation balance at φ/Φ deviations: from 0 at a sure gain to 3 at an
# unlikely one (z = -2.7). Four trade-offs find maxima for every threshold at once.
HOPES = (0.0, 0.5, 1.25, 3.0)
STARTS = 4  # a trade-off, a tenth apart
STEPS = 25  # projected gradient steps of every start
# n² x q up to which gradients are taken: BoTorch holds several covariances of all trials for them.
# With them (and all trials looked at as incumbents) 4,096 trials of 20 metrics, 3.4e8, overran
# 23 GB; without, they take 3.4 GiB and 53 s of one core.
STEEP = 1e8
CLOUD = (0.2, 0.07, 0.02)  # widths, on √w, of what is drawn around the climbed ones
AROUND = 6  # draws a width


def candidates(
    surrogate: JointSurrogate,
    objective: Objective,
    space: MixtureSpace,
    observed: np.ndarray,
    trials: int,
    rng: np.random.Generator,
    fidelity: Fidelity | None = None,
) -> np.ndarray:
    """Feasible mixtures (c, m) where mean and deviation promise improvement.

    Dirichlet draws over the space, draws between them and what was observed, and vertices; the
    best of these by gradients of mean - hope x deviation in √w (not where trials are too many for
    that); and clouds around where those led.

    Args:
        surrogate: fitted.
        objective: to be lowered.
        space: where candidates may lie.
        observed: (k, m) mixtures known already, to draw around.
        trials: how many the surrogate was fitted to: sets how many predictions are affordable.
        rng: where the randomness comes from.
        fidelity: to predict at, for surrogates of several.
    """

    def predict(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = surrogate.predict(weights, fidelity).compose(objective)
        return mean + space.penalty(weights), std

    some = int(np.clip(WORK / (trials**2 * len(objective.metrics)), 256, DRAWN))
    drawn = spread(space, observed, some, rng)
    mean, std = predict(drawn)
    if not surrogate.modelled or std.max() <= 0:  # nothing varies: every mixture is as good
        return drawn
    best = float(mean.min() if not len(observed) else predict(observed)[0].min())
    starts, hopes = _starts(drawn, mean, std)
    climbed = starts
    if trials**2 * len(objective.metrics) <= STEEP:
        climbed = climb(surrogate, objective, space, starts, hopes, fidelity)
    cloud = around(space, np.concatenate([climbed, starts]), rng)
    near = np.concatenate([climbed, cloud])
    near_mean, near_std = predict(near)
    found, means = np.concatenate([near, drawn]), np.concatenate([near_mean, mean])
    best_ones = _promising(means, np.concatenate([near_std, std]), best)
    return np.unique(found[best_ones], axis=0)


def spread(
    space: MixtureSpace, observed: np.ndarray, some: int, rng: np.random.Generator
) -> np.ndarray:
    """(c, m): half over the whole space, half between there and `observed` (k, m); vertices."""
    half = max(1, some // 2)
    strengths = np.exp(rng.uniform(np.log(STRENGTHS[0]), np.log(20.0), half))
    wide = space.sample_dirichlet(half, rng, strength=strengths, temperature=TEMPERATURE)
    if not len(observed):
        return np.concatenate([wide, space.vertices()])
    partners = observed[rng.integers(len(observed), size=half)]
    near = space.project(partners + rng.uniform(0.02, 0.5, (half, 1)) * (wide - partners))
    return np.concatenate([wide, near, space.vertices()])


def _promising(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Indices (<= 5 KEPT,): those best by expected improvement, and by each trade-off."""
    scores = [-marginal_log_improvement(mean, std, best), *(mean - h * std for h in HOPES)]
    return np.unique(np.concatenate([np.argsort(s, kind="stable")[:KEPT] for s in scores]))


def _starts(drawn: np.ndarray, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of `drawn` for each trade-off (s, m), and the trade-offs (s,)."""
    starts, hopes = [], []
    for hope in HOPES:
        order = np.argsort(mean - hope * std, kind="stable")[:256]
        nothing = np.empty((0, drawn.shape[1]))
        firsts = first_apart(drawn[order], nothing, STARTS, apart=0.1)
        starts.append(drawn[order][firsts])
        hopes.append(np.full(len(firsts), hope))
    return np.concatenate(starts), np.concatenate(hopes)


def around(
    space: MixtureSpace,
    centres: np.ndarray,
    rng: np.random.Generator,
    widths: Sequence[float] = CLOUD,
    draws: int = AROUND,
) -> np.ndarray:
    """Feasible mixtures near `centres` (s, m): `draws` for each of `widths`, lengths on √w."""
    s, m = centres.shape
    steps = rng.normal(size=(s, len(widths), draws, m)) / np.sqrt(m)
    roots = np.sqrt(centres)[:, None, None] + np.array(widths)[:, None, None] * steps
    near = roots.reshape(-1, m) ** 2
    return space.project(near / near.sum(axis=1, keepdims=True))


def climb(
    surrogate: JointSurrogate,
    objective: Objective,
    space: MixtureSpace,
    starts: np.ndarray,
    hopes: np.ndarray,
    fidelity: Fidelity | None = None,
) -> np.ndarray:
    """Local minima (s, m) of mean - hope x deviation from `starts` (s, m), hopes (s,).

    Projected gradients on √w, where no slope blows up at 0. Every start has its own step, longer
    after each gain, shorter after each loss; all are predicted in one call.
    """
    bound = _lower_bound(surrogate, surrogate.predict(starts[:1], fidelity), objective, hopes)
    reference = np.maximum(space.reference.array, 1e-12)

    def valued(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = bound(weights)
        if space.kl_penalty > 0:
            ratio = np.log(np.maximum(weights, 1e-12) / reference)
            values = values + space.kl_penalty * (weights * ratio).sum(axis=1)
            slopes = slopes + space.kl_penalty * (ratio + 1)
        return values, 2 * np.sqrt(weights) * slopes

    at = starts.copy()
    values, slopes = valued(at)
    step = np.full(len(starts), 0.1)  # length of a step on the sphere of √w
    for _ in range(STEPS):
        roots = np.sqrt(at)
        along = (
            slopes - (slopes * roots).sum(axis=1, keepdims=True) * roots
        )  # tangent to the sphere
        length = np.linalg.norm(along, axis=1, keepdims=True)
        moved = roots - step[:, None] * along / np.maximum(length, 1e-12)
        trial = space.project(moved**2 / (moved**2).sum(axis=1, keepdims=True))
        new, slope = valued(trial)
        better = new < values
        at[better], values[better], slopes[better] = trial[better], new[better], slope[better]
        step = np.where(better, 1.5 * step, 0.4 * step)
    return at


Bound = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _lower_bound(
    surrogate: JointSurrogate, prediction: Prediction, objective: Objective, hopes: np.ndarray
) -> Bound:
    """Weights (s, m) → mean - hope x deviation (s,) of the objective, and its slopes (s, m)."""
    names = surrogate.modelled
    weigh = np.array([objective.weights.get(name, 0.0) for name in names])
    tied = np.eye(len(names))
    if prediction.correlation is not None:
        rows = [prediction.metrics.index(name) for name in names]
        tied = np.ascontiguousarray(prediction.correlation[np.ix_(rows, rows)])
    slopes_of = surrogate.slopes
    if slopes_of is None:
        return _bound_by_torch(surrogate, weigh, tied, hopes)

    def bound(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std, mean_slope, std_slope = slopes_of(weights)
        part = std * weigh
        pulled = part @ tied
        deviation = np.sqrt(np.maximum((part * pulled).sum(axis=1), 1e-18))
        spread = np.einsum("sp,spm->sm", pulled * weigh / deviation[:, None], std_slope)
        slopes = np.einsum("p,spm->sm", weigh, mean_slope) - hopes[:, None] * spread
        return mean @ weigh - hopes * deviation, slopes

    return bound


def _bound_by_torch(
    surrogate: JointSurrogate, weigh: np.ndarray, tied: np.ndarray, hopes: np.ndarray
) -> Bound:
    """The same from the surrogate's BoTorch model."""
    import torch

    model = surrogate.model
    weigh_P, correlation, hope = map(torch.from_numpy, (weigh, tied, hopes))

    def bound(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = torch.from_numpy(weights.copy()).requires_grad_(True)
        with reproducible(0):  # torch may have been imported only now
            posterior: Any = model.posterior(at)  # BoTorch's base class promises no moments
            part = posterior.variance.clamp_min(1e-16).sqrt() * weigh_P
            variance = torch.einsum("sp,pr,sr->s", part, correlation, part).clamp_min(1e-18)
            lowered = posterior.mean @ weigh_P - hope * variance.sqrt()
            (slopes,) = torch.autograd.grad(lowered.sum(), at)
        return lowered.detach().numpy(), slopes.numpy()

    return bound
