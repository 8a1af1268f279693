"""Matérn-5/2 on scaled inputs, and what a gradient through it needs.

Shapes: n and b points, m inputs.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dlauum, dpotrf, dtrtri

ROOT5 = np.sqrt(5.0)
SMALL = 64  # rows up to which a triangle is inverted as a whole
JITTER = 1e-8  # of a standardised variance: far below any noise that can be measured


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, b) √5 x Euclidean distance between rows of `a` (n, m) and `b` (b, m)."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(ROOT5 * np.sqrt(np.maximum(squared, 0.0)))


def matern(distance: np.ndarray) -> np.ndarray:
    """The kernel at √5 x `distance` (Rasmussen and Williams 2006, eq. 4.17); 1 at none."""
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def matern_slope(distance: np.ndarray) -> np.ndarray:
    """Its derivative by the squared distance, smooth also at none."""
    return np.asarray((-5 / 6) * (1 + distance) * np.exp(-distance))


class Correlations:
    """The kernel within sets of n points, in memory that is had once.

    Half a megabyte asked of the system anew for every covariance costs more than to fill it.

    Attributes:
        kernel: (g, n, n) of the points that `fill` was given last.
        decay: (g, n, n) (1 + d) exp(-d) at √5 x distance d: the kernel's derivative by the squared
            distance is -5/6 of it, smooth also at none.
    """

    def __init__(self, sets: int, n: int) -> None:
        self._memory = np.empty((3, sets, n, n))
        self.kernel, self.decay, _ = self._memory

    def fill(self, scaled: np.ndarray) -> None:
        """Take inputs over length scales (g, n, m), of no more sets than there is room for."""
        self.kernel, self.decay, shrink = kernel, distance, _ = self._memory[:, : len(scaled)]
        scaled = ROOT5 * scaled
        norm = np.einsum("gnm,gnm->gn", scaled, scaled)[..., None]
        one = np.ones_like(norm)
        # |a|² + |b|² - 2ab in one product
        left = np.concatenate([scaled, norm, one], axis=2)
        right = np.concatenate([-2 * scaled, one, norm], axis=2)
        np.matmul(left, right.swapaxes(1, 2), out=kernel)
        np.maximum(kernel, 0.0, out=kernel)
        np.sqrt(kernel, out=distance)
        np.negative(distance, out=shrink)
        np.exp(shrink, out=shrink)
        distance += 1
        distance *= shrink
        kernel *= shrink
        kernel *= 1 / 3
        kernel += distance


def invert(covariances: np.ndarray) -> float | None:
    """Replace each of `covariances` (g, n, n) by its inverse; returns the sum of log determinants.

    Only the upper half of the inverse (in C order) is written. None if one of them is not positive
    definite.
    """
    total = 0.0
    for covariance in covariances:
        matrix = covariance.T  # LAPACK's order, so that it works in place
        root, failed = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        if failed:
            return None
        total += 2 * float(np.log(np.diag(root)).sum())
        matrix[...] = _inverse_root(root)
        dlauum(matrix, lower=1, overwrite_c=1)
    return total


def _inverse_root(root: np.ndarray) -> np.ndarray:
    """Inverse (n, n) of a lower triangle, by halves: OpenBLAS takes it column by column.

    Of 256 trials, factor and inverse take .83 ms so, and 1.12 ms with `dpotri`.
    """
    n = len(root)
    if n <= SMALL:
        return np.asarray(dtrtri(root, lower=1)[0])
    half = n // 2
    first = _inverse_root(np.asfortranarray(root[:half, :half]))
    last = _inverse_root(np.asfortranarray(root[half:, half:]))
    inverse = np.zeros((n, n), order="F")
    inverse[:half, :half], inverse[half:, half:] = first, last
    below = dtrmm(-1.0, first, np.asfortranarray(root[half:, :half]), side=1, lower=1)
    inverse[half:, :half] = dtrmm(1.0, last, below, lower=1, overwrite_b=1)
    return inverse
