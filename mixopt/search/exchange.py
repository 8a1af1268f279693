"""Which few of many points tell most about a model: D-optimal choice by exchange.

Shapes: c candidates, f points that are there already, n points to choose, p features.
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-3  # prior precision of a coefficient: makes fewer points than features well-posed
GAIN = 1e-6  # log-determinant gained by an exchange under which none is made
EXCHANGES = 4  # per chosen point at most; 24 to 128 of 512 RegMix mixtures needed .1 to .7


def d_optimal(
    candidates: np.ndarray, n: int, fixed: np.ndarray | None = None, ridge: float = RIDGE
) -> np.ndarray:
    """Rows of `candidates` that, with `fixed`, make det(X'X + ridge I) great.

    A greedy choice, then Fedorov's exchange: the chosen row and the candidate whose exchange gains
    most change places, until none gains. With a chosen row i and a candidate j, and
    d(a, b) = a' (X'X + ridge I)^-1 b, the determinant grows by the factor
    1 + d(j, j) - d(i, i) - d(i, i) d(j, j) + d(i, j)^2 (Fedorov 1972, Theory of Optimal
    Experiments; the ridge as in DuMouchel and Jones 1994, so that n may be less than p).

    Args:
        candidates: (c, p) features of what may be chosen; a row is chosen at most once.
        n: how many; all of them if there are fewer.
        fixed: (f, p) features of points that stay.
        ridge: prior precision of the model's coefficients.

    Returns:
        (min(n, c),) indices in the order of the greedy choice; exchanged ones take the place of
        those they replace. Ties fall to the first, so that equal arguments give equal indices.
    """
    count, p = candidates.shape
    n = min(n, count)
    there = np.empty((0, p)) if fixed is None else fixed
    inverse = np.linalg.inv(there.T @ there + ridge * np.eye(p))
    chosen: list[int] = []
    free = np.ones(count, dtype=bool)
    gain = np.einsum("cp,pr,cr->c", candidates, inverse, candidates)
    for _ in range(n):
        best = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(best)
        free[best] = False
        along = inverse @ candidates[best]
        inverse -= np.outer(along, along) / (1 + gain[best])  # Sherman and Morrison
        gain = gain - (candidates @ along) ** 2 / (1 + gain[best])
    rows = np.array(chosen, dtype=int)
    for _ in range(EXCHANGES * n):
        if not free.any():
            break
        # afresh from the points: updated inverses drift, and p x p is cheap beside the products
        known = np.concatenate([there, candidates[rows]])
        inverse = np.linalg.inv(known.T @ known + ridge * np.eye(p))
        spread = candidates @ inverse
        own = np.einsum("cp,cp->c", spread, candidates)
        cross = candidates[rows] @ spread.T
        out = own[rows][:, None]
        factor = 1 + own[None] - out - out * own[None] + cross**2
        factor[:, ~free] = 0.0
        i, j = np.unravel_index(int(factor.argmax()), factor.shape)
        if np.log(factor[i, j]) <= GAIN:
            break
        free[rows[i]], free[j] = True, False
        rows[i] = j
    return rows
