"""How the posterior of the effective-data law changes with the weights.

Shapes: n trials, b mixtures, m domains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_solve

from mixopt.surrogates.gp._law_gp import OFFSET, law
from mixopt.surrogates.gp._matern import distances, matern, matern_slope

if TYPE_CHECKING:
    from mixopt.surrogates.gp._posterior import Posterior


def posterior_slopes(posterior: Posterior, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of one metric, standardised, at `weights` (b, m).

    Returns:
        mean and deviation (b,) of the noise-free mean, and their slopes (b, m) by the weights.
    """
    p = posterior
    x = (weights + OFFSET) ** p.gamma
    level, parts = law(x, p.law)
    distance = distances(x / p.length, p.trials / p.length)
    cross = p.variance * matern(distance) + (parts * p.prior) @ p.slopes.T
    solved = cho_solve((p.cholesky, True), cross.T, check_finite=False).T  # (b, n)
    mean = level + parts @ p.away + cross @ p.alpha
    variance = p.variance + (parts**2 * p.prior).sum(axis=1) - (cross * solved).sum(axis=1)
    std = p.calibration * np.sqrt(np.maximum(variance, 1e-12))

    steep = p.variance * matern_slope(distance)

    def along(alpha: np.ndarray) -> np.ndarray:
        """Slopes (b, m) by x of the sum over trials of `alpha` (b, n) x kernel."""
        pulled = steep * alpha
        away = x * pulled.sum(axis=1, keepdims=True) - pulled @ p.trials
        return np.asarray(2 * away / p.length**2)

    mean_slope = _law_slope(x, p.law) + along(p.alpha[None])
    mean_slope += _contracted(x, p.law, (p.away + p.prior * (p.alpha @ p.slopes))[None])
    pulls = p.prior * (parts - solved @ p.slopes)
    variance_slope = 2 * (_contracted(x, p.law, pulls) - along(solved))
    by_weight = p.gamma * x / (weights + OFFSET)
    mean_slope *= by_weight
    variance_slope *= by_weight
    return mean, std, mean_slope, p.calibration**2 * variance_slope / (2 * std[:, None])


def _law_slope(x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """(b, m) slopes of the law by x (b, m): -B s_j / u."""
    effect, ground = np.exp(parameters[1:3])
    shares = np.exp(parameters[3:])
    return np.asarray(-effect * shares / (ground + x @ shares)[:, None])


def _contracted(x: np.ndarray, parameters: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """(b, m) slopes by x (b, m) of the law's slopes by its parameters, summed with `pulls`.

    `pulls` (b or 1, 3 + m) are held fast.
    """
    effect, ground = np.exp(parameters[1:3])
    shares = np.exp(parameters[3:])
    data = (ground + x @ shares)[:, None]
    whole = pulls[:, 2:3] * ground + (pulls[:, 3:] * x * shares).sum(axis=1, keepdims=True)
    return np.asarray(effect * shares / data * (whole / data - pulls[:, 1:2] - pulls[:, 3:]))
