"""Noisy expected hypervolume improvement over a finite set of mixtures.

Shapes: k objectives, c points, s posterior samples, b base points, h cells of a partition. Lower is
better; BoTorch's partitions, where higher is better, are of negated values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from scipy.special import logsumexp

from mixopt.search.proposers._improvement import Paths, log_excess, standard_normals

SAMPLES = 16  # of the base points; the rest is in closed form, and each costs a partition
BASE = 48  # observed points drawn: the least dominated ones


def contenders(means: np.ndarray, stds: np.ndarray, margin: float, most: int = BASE) -> np.ndarray:
    """Indices (<= most,) of those of c observed points that may be on the Pareto front.

    `means` and `stds` are (k, c). A point contends unless another one is better in every objective
    even if it is `margin` deviations better than it looks.
    """
    hope = means - margin * stds
    dominators = (means[:, :, None] <= hope[:, None, :]).all(axis=0).sum(axis=0)
    order = np.argsort(dominators, kind="stable")
    return np.asarray(order[dominators[order] == 0][:most])


def greedy_hypervolume(
    means: np.ndarray,
    covariances: np.ndarray,
    base: Sequence[int],
    free: Sequence[int],
    n: int,
    worst: np.ndarray,
    seed: int,
    blocked: np.ndarray | None = None,
    log_feasible: np.ndarray | None = None,
) -> list[int]:
    """The `n` of `free` with the greatest joint expected hypervolume improvement, one by one.

    qNEHVI (2105.08195) in logarithms (2310.20708): the base points are drawn jointly, objective by
    objective, each choice is drawn along before the next; given a draw, what a point adds to the
    volume is Gaussian in each cell of the volume not yet dominated, and integrated in closed form.

    Args:
        means: (k, c) of the noise-free objectives, taken as independent.
        covariances: (k, c, c) of them.
        base: points that are observed or will be.
        free: points to choose from.
        n: how many.
        worst: (k,) reference point.
        seed: of the draws.
        blocked: (c, c) bool: the points that a chosen one rules out.
        log_feasible: (c,) log probability that a point may be chosen at all.
    """
    paths = [Paths.of(m, c, SAMPLES) for m, c in zip(means, covariances, strict=True)]
    k, width = len(paths), len(base) + n
    normals = standard_normals(SAMPLES, k * width, seed).reshape(SAMPLES, width, k)
    values = [_draw(paths, point, normals[:, i]) for i, point in enumerate(base)]
    front = np.stack(values, axis=1) if values else np.empty((SAMPLES, 0, k))
    partitions = [partition(each, worst) for each in front]
    left, chosen = np.zeros(means.shape[1], dtype=bool), list[int]()
    left[list(free)] = True
    while left.any() and len(chosen) < n:
        rows = np.flatnonzero(left)
        score = log_added_volume(paths, rows, partitions)
        score = score if log_feasible is None else score + log_feasible[rows]
        take = int(rows[np.argmax(score)])
        chosen.append(take)
        left[take] = False
        if blocked is not None:
            left &= ~blocked[take]
        if len(chosen) < n:
            new = _draw(paths, take, normals[:, len(base) + len(chosen) - 1])
            for each, value in zip(partitions, new, strict=True):
                each.update(torch.from_numpy(-value[None]))
    return chosen


def log_added_volume(
    paths: Sequence[Paths], rows: np.ndarray, partitions: Sequence[FastNondominatedPartitioning]
) -> np.ndarray:
    """(r,) log expected volume that each of the points `rows` adds, over draws (s) of a front."""
    found = np.empty((len(partitions), len(rows)))
    deviations = [np.maximum(p.deviations[rows], np.sqrt(p.floor)) for p in paths]
    for s, cells in enumerate(partitions):
        lower, upper = cells.get_hypercell_bounds().numpy()
        logs = np.zeros((len(rows), len(lower)))
        for i, (path, scale) in enumerate(zip(paths, deviations, strict=True)):
            level = -path.means[s, rows]
            above = [
                log_excess((level[:, None] - edge[:, i]) / scale[:, None])
                for edge in (lower, np.minimum(upper, 1e300))
            ]
            share = -np.expm1(np.minimum(above[1] - above[0], 0.0))
            with np.errstate(divide="ignore"):
                logs += np.log(scale)[:, None] + above[0] + np.log(share)
        found[s] = logsumexp(logs, axis=1)
    return np.asarray(logsumexp(found, axis=0) - np.log(len(partitions)))


def _draw(paths: Sequence[Paths], point: int, normals: np.ndarray) -> np.ndarray:
    """(s, k) values at `point` from standard normals (s, k)."""
    return np.stack([p.draw(point, normals[:, i]) for i, p in enumerate(paths)], axis=1)


def partition(front: np.ndarray, worst: np.ndarray) -> FastNondominatedPartitioning:
    """Cells, negated, of what `front` (b, k) does not dominate of the volume up to `worst` (k,)."""
    return FastNondominatedPartitioning(
        ref_point=torch.from_numpy(-worst), Y=torch.from_numpy(-front)
    )
