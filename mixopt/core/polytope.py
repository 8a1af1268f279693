"""Geometry of a mixture space: the simplex cut by bounds and linear constraints, on bare arrays.

Shapes: n points, m domains, l linear constraints. Names live in `mixopt.core.space`; scipy is
imported only where a linear programme or a non-negative least squares problem has to be solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

FEASIBLE = 1e-9  # how far outside a bound a point may lie and still count as inside (rounding)


@dataclass(frozen=True)
class Polytope:
    """The points r with sum(r) = 1, lower <= r <= upper and matrix @ r <= limits.

    Attributes:
        lower: (m,) least weights.
        upper: (m,) greatest weights.
        matrix: (l, m) coefficients of the linear constraints; l may be 0.
        limits: (l,) their right-hand sides.
    """

    lower: np.ndarray
    upper: np.ndarray
    matrix: np.ndarray
    limits: np.ndarray

    def minimum(self, cost: np.ndarray) -> np.ndarray | None:
        """A vertex (m,) at which `cost` (m,) @ r is least; None where no point is feasible."""
        from scipy.optimize import linprog

        solution = linprog(
            np.asarray(cost, dtype=float),
            A_ub=self.matrix if len(self.matrix) else None,
            b_ub=self.limits if len(self.matrix) else None,
            A_eq=np.ones((1, len(cost))),
            b_eq=[1.0],
            bounds=list(zip(self.lower.tolist(), self.upper.tolist(), strict=True)),
            method="highs",
        )
        if not solution.success:
            return None
        vertex: np.ndarray = self.project(np.asarray(solution.x)[None])[0]
        return vertex

    @cached_property
    def extremes(self) -> np.ndarray:
        """(v, m) vertices with most and least of each domain, and of each linear constraint."""
        costs = np.concatenate([np.eye(len(self.lower)), self.matrix])
        vertices = [self.minimum(sign * cost) for cost in costs for sign in (-1.0, 1.0)]
        return np.array([vertex for vertex in vertices if vertex is not None])

    @cached_property
    def center(self) -> np.ndarray:
        """(m,) a point well inside: the mean of `extremes`.

        A constraint that it reaches is reached by every feasible point. A Chebyshev centre would
        not do: one domain with equal bounds would shrink its ball to nothing.
        """
        return np.asarray(self.extremes.mean(axis=0))

    def excess(self, points: np.ndarray) -> np.ndarray:
        """(n,) by how much each of `points` (n, m) breaks its worst constraint; <= 0 if none."""
        over = np.maximum(points - self.upper, self.lower - points).max(axis=1)
        over = np.maximum(over, np.abs(points.sum(axis=1) - 1))
        if len(self.matrix):
            over = np.maximum(over, (points @ self.matrix.T - self.limits).max(axis=1))
        return np.asarray(over)

    def project(self, points: np.ndarray, tolerance: float = FEASIBLE) -> np.ndarray:
        """The feasible points (n, m) nearest to `points` (n, m) in Euclidean distance.

        Points that break no linear constraint by more than `tolerance` count as feasible.

        With bounds alone a water level is found by bisection, all rows at once. Rows that then
        break a linear constraint become a least-distance problem each, solved exactly by
        non-negative least squares (Lawson and Hanson 1974, chapter 23).
        """
        near = project_box(points, self.lower, self.upper)
        if not len(self.matrix):
            return near
        for i in np.flatnonzero(self.excess(near) > tolerance):
            near[i] = self._least_distance(points[i])
        return near

    def _least_distance(self, point: np.ndarray) -> np.ndarray:
        from scipy.optimize import nnls

        m = len(point)
        # r = start + basis @ y walks the hyperplane sum(r) = 1 without changing distances
        start = point + (1 - point.sum()) / m
        basis = np.linalg.svd(np.ones((1, m)))[2][1:].T
        rows = np.concatenate([-np.eye(m), np.eye(m), -self.matrix])
        needs = np.concatenate([-self.upper, self.lower, -self.limits]) - rows @ start
        system = np.concatenate([(rows @ basis).T, needs[None]])
        target = np.zeros(m)
        target[-1] = 1.0
        dual, _ = nnls(system, target)
        residual = system @ dual - target
        nearest = start - basis @ residual[:-1] / residual[-1]
        return np.asarray(project_box(nearest[None], self.lower, self.upper)[0])


def project_box(points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Euclidean projection of `points` (n, m) onto {sum = 1, lower <= r <= upper}.

    The projection is clip(point - level, lower, upper) at the level where it sums to 1; the sum
    falls with the level, so bisection finds it. The last step solves for the level exactly on the
    coordinates that bisection found to be between their bounds.
    """
    low = (points - upper).min(axis=1) - 1e-12
    high = (points - lower).max(axis=1) + 1e-12
    for _ in range(60):
        level = (low + high) / 2
        too_much = np.clip(points - level[:, None], lower, upper).sum(axis=1) > 1
        low, high = np.where(too_much, level, low), np.where(too_much, high, level)
    level = (low + high) / 2
    shifted = points - level[:, None]
    clipped = np.clip(shifted, lower, upper)
    free = (shifted > lower) & (shifted < upper)
    count = free.sum(axis=1)
    share = np.divide(1 - clipped.sum(axis=1), count, out=np.zeros(len(points)), where=count > 0)
    return np.asarray(np.clip(clipped + np.where(free, share[:, None], 0.0), lower, upper))
