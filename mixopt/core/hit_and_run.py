"""Random points of a polytope by hit-and-run: a Dirichlet density cut off at linear constraints.

A step draws a direction and then a new point on the part of the line that is feasible (Smith 1984).
Most directions exchange two weights, where the density along the line is a truncated beta and is
drawn exactly. The others lie in the affine hull too, so constraints that leave a domain, or a sum
of domains, no room hold exactly, and those beside them are still explored.

Shapes: n points, m domains, l linear constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.polytope import FEASIBLE, Polytope

STEPS = 60, 8  # and so many more a domain: with two slabs over 20, moments equal rejection's
TRIES = 4  # points of a line that compete with the present one, where more than two weights change
ENDS = 3  # the share of a line's half at which a try lies is a uniform number to this power
LEAST = 1e-6  # such a line's density is flat below: such a weight is next to 0
PARALLEL = 1e-12  # a constraint that changes less than this along a line does not end it
INSIDE = 0.9  # of the way from the centre to the border: at the border itself lines have no length


def hit_and_run(box: Polytope, points: np.ndarray, alpha: np.ndarray, key: int) -> np.ndarray:
    """Feasible points (n, m), drawn from Dirichlet(alpha) under the condition of being feasible.

    Exactly so after many steps; the chain of row i begins near `points[i]`. Its random numbers
    depend on `key` and i alone, not on how many rows there are.

    Args:
        box: what is feasible.
        points: (n, m) where to begin; they need not be feasible.
        alpha: (n, m) of the Dirichlet densities; all 1 is the uniform distribution.
        key: of the randomness.
    """
    m = len(box.lower)
    lines = _Lines.of(box)
    at = _begin(box.center, _dot(points - box.center, lines.hull), lines)
    steps, more = STEPS
    for step in range(steps + more * m):
        random = np.random.default_rng([key, step]).random((len(at), 2 + TRIES + 1))
        pairs = lines.cycle[step % len(lines.cycle)]
        if pairs is None:
            along = lines.directions(step, random[:, :2])
            at = at + _along(lines, at, along, alpha, random[:, 2:])[:, None] * along
        else:
            _exchange(lines, at, pairs.draw(random[:, :2]), alpha, random[:, 2])
    return np.asarray(np.clip(at, box.lower, box.upper))


@dataclass(frozen=True)
class _Pairs:
    """Which weights may be exchanged: the partners of domain i are `partners[i, : counts[i]]`."""

    counts: np.ndarray
    partners: np.ndarray

    @classmethod
    def of(cls, allowed: np.ndarray) -> _Pairs:
        """From the (m, m) matrix of what is allowed."""
        return cls(allowed.sum(axis=1), np.argsort(~allowed, axis=1, kind="stable"))

    def draw(self, random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of domains (n,) from `random` (n, 2): domains alike, then their partners alike."""
        able = np.flatnonzero(self.counts)
        first = able[(random[:, 0] * len(able)).astype(int)]
        return first, self.partners[first, (random[:, 1] * self.counts[first]).astype(int)]


@dataclass(frozen=True)
class _Lines:
    """The lines along which points move.

    Attributes:
        box: what is feasible.
        matrix: (l, m) linear constraints that change along the hull.
        limits: (l,) their right-hand sides.
        hull: (m, m) projection on the directions along which no other constraint changes.
        cycle: steps in turn, by the pairs they may exchange; None moves along any direction.
    """

    box: Polytope
    matrix: np.ndarray
    limits: np.ndarray
    hull: np.ndarray
    cycle: Sequence[_Pairs | None]

    @classmethod
    def of(cls, box: Polytope) -> _Lines:
        m = len(box.lower)
        fixed = np.minimum(box.upper - box.center, box.center - box.lower) <= FEASIBLE
        tight = box.limits - box.matrix @ box.center <= FEASIBLE
        matrix = box.matrix[~tight]
        hull = _hull(np.concatenate([np.ones((1, m)), np.eye(m)[fixed], box.matrix[tight]]))
        swaps = np.eye(m)[:, None] - np.eye(m)[None]
        inside = (np.abs(swaps @ hull - swaps).max(axis=2) < FEASIBLE) & ~np.eye(m, dtype=bool)
        within = inside & (np.abs(swaps @ matrix.T) < PARALLEL).all(axis=2)
        spanned = inside.any() and np.linalg.matrix_rank(swaps[inside]) == round(np.trace(hull))
        any_, kept = (_Pairs.of(each) if each.any() else None for each in (inside, within))
        cycle = (None, any_, kept if spanned else None, kept)
        return cls(box, matrix, box.limits[~tight], hull, cycle)

    def directions(self, step: int, random: np.ndarray) -> np.ndarray:
        """(n, m) from `random` (n, 2): between two vertices, or two weights' exchange projected."""
        ends = self.hull if step % 8 else self.box.extremes
        first, second = (random * len(ends)).astype(int).T
        return np.asarray(ends[first] - ends[second])

    def chords(self, at: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) least and greatest feasible steps from `at` (n, m) along lines, or 0."""
        rates = np.concatenate([along, -along, _dot(along, self.matrix)], axis=1)
        slack = np.concatenate(
            [self.box.upper - at, at - self.box.lower, self.limits - _dot(at, self.matrix)], axis=1
        )
        back, ahead = _ends(slack, rates)
        still = ~(np.isfinite(back) & np.isfinite(ahead))
        return np.where(still, 0.0, back), np.where(still, 0.0, ahead)


def _dot(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`rows` @ `others`.T, each row by itself: a BLAS rounds it otherwise beside other rows."""
    return np.asarray(np.einsum("nm,lm->nl", rows, others))


def _hull(reached: np.ndarray) -> np.ndarray:
    """Projection (m, m) on the directions along which none of `reached` (g, m) changes."""
    _, sizes, directions = np.linalg.svd(reached)
    free = directions[(sizes > FEASIBLE * sizes.max()).sum() :]
    return np.asarray(free.T @ free)


def _begin(center: np.ndarray, offsets: np.ndarray, lines: _Lines) -> np.ndarray:
    """Points (n, m) inside, on the way from the centre along `offsets` (n, m)."""
    _, reach = lines.chords(np.broadcast_to(center, offsets.shape), offsets)
    return np.asarray(center + INSIDE * np.minimum(reach, 1.0)[:, None] * offsets)


def _ends(slack: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) least and greatest step at which no `slack` (n, g), falling by `rates`, is negative."""
    slack = np.maximum(slack, 0.0)
    ahead = np.full(rates.shape, np.inf)
    behind = ahead.copy()
    np.divide(slack, rates, out=ahead, where=rates > PARALLEL)
    np.divide(slack, -rates, out=behind, where=rates < -PARALLEL)
    return -behind.min(axis=1, initial=np.inf), ahead.min(axis=1, initial=np.inf)


def _exchange(
    lines: _Lines,
    at: np.ndarray,
    pair: tuple[np.ndarray, np.ndarray],
    alpha: np.ndarray,
    random: np.ndarray,
) -> None:
    """Divide the sum of two weights of each of `at` (n, m) anew, in place.

    The share of the first has a beta distribution, truncated to what is feasible.
    """
    first, second = pair
    rows, box = np.arange(len(at)), lines.box
    weight, total = at[rows, first], at[rows, first] + at[rows, second]
    least = np.maximum(box.lower[first], total - box.upper[second])
    most = np.minimum(box.upper[first], total - box.lower[second])
    if len(lines.matrix):
        rates = (lines.matrix[:, first] - lines.matrix[:, second]).T
        back, ahead = _ends(lines.limits - _dot(at, lines.matrix), rates)
        least, most = np.maximum(least, weight + back), np.minimum(most, weight + ahead)
    drawn = _truncated_beta(alpha[rows, first], alpha[rows, second], least, most, total, random)
    at[rows, first], at[rows, second] = drawn, total - drawn


def _truncated_beta(
    a: np.ndarray,
    b: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    total: np.ndarray,
    random: np.ndarray,
) -> np.ndarray:
    """(n,) `total` times a beta(a, b) draw, between `least` and `most`.

    Where these are so far out in a tail that it holds no number, the one nearest to the mean.
    """
    from scipy.special import betainc, betaincinv

    most = np.maximum(most, least)
    unit = np.where(total > 0, total, 1.0)
    low = betainc(a, b, np.clip(least / unit, 0.0, 1.0))
    high = betainc(a, b, np.clip(most / unit, 0.0, 1.0))
    share = np.where(
        high - low > FEASIBLE, betaincinv(a, b, low + random * (high - low)), a / (a + b)
    )
    return np.asarray(np.clip(share * total, least, most))


def _along(
    lines: _Lines, at: np.ndarray, along: np.ndarray, alpha: np.ndarray, random: np.ndarray
) -> np.ndarray:
    """(n,) steps along lines: one of `TRIES` drawn or 0, with chances as density / density drawn.

    Tries do not depend on the present point, so this leaves the density as it is (iterated sampling
    importance resampling, Andrieu, Doucet and Holenstein 2010). They are dense near the ends of a
    line, where weights are small and a sparse density has its mass.
    """
    back, ahead = lines.chords(at, along)
    length = ahead - back
    half = np.minimum(random[:, :TRIES], 1 - random[:, :TRIES])
    share = 0.5 * (2 * half) ** ENDS
    moves = np.where(
        random[:, :TRIES] < 0.5,
        back[:, None] + length[:, None] * share,
        ahead[:, None] - length[:, None] * share,
    )
    moves = np.concatenate([np.zeros((len(at), 1)), moves], axis=1)
    present = np.minimum(-back, ahead) / np.where(length > 0, length, 1.0)
    share = np.maximum(np.concatenate([present[:, None], share], axis=1), LEAST)
    density = (1 - 1 / ENDS) * np.log(share) + np.stack(
        [
            ((alpha - 1) * np.log(np.maximum(at + move[:, None] * along, LEAST))).sum(axis=1)
            for move in moves.T
        ],
        axis=1,
    )
    chances = np.exp(density - density.max(axis=1, keepdims=True)).cumsum(axis=1)
    chosen = (chances < random[:, TRIES, None] * chances[:, -1:]).sum(axis=1)
    return np.asarray(moves[np.arange(len(at)), chosen])
