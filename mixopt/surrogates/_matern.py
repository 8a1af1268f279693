"""Matérn-5/2 on scaled inputs, and what a gradient through it needs.

Shapes: n and b points, m inputs.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

ROOT5 = np.sqrt(5.0)
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


def factor(covariance: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Inverse (n, n) and log determinant of a covariance; None if it is not positive definite."""
    root, failed = dpotrf(covariance, lower=1)
    if failed:
        return None
    inverse, _ = dpotri(root, lower=1)
    full = np.tril(inverse) + np.tril(inverse, -1).T
    return full, 2 * float(np.log(np.diag(root)).sum())
