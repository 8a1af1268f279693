"""Noisy expected improvement over a finite set of mixtures, exactly conditioned draw by draw.

Shapes: c points, s posterior samples, n chosen, k objectives. Lower is better throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, logsumexp
from scipy.stats import norm, qmc

SAMPLES = 256  # of the incumbents' joint posterior (quasi-random)
INCUMBENTS = 48  # observed points that may be the best; rarer ones change nothing that is seen
DOUBT = 2.5  # deviations by which an observed point may be better than it looks
KNOWN = 1e-10  # share of the prior variance under which a point counts as known
LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


@dataclass
class Paths:
    """s draws of a Gaussian posterior at some of c points, and what they leave open at the others.

    Given a draw, the posterior elsewhere stays Gaussian, with its own mean and a covariance that
    all draws share: expectations over it are taken in closed form, and only the drawn points cost
    Monte-Carlo error.

    Attributes:
        means: (s, c) conditional mean of each draw; the value itself at drawn points.
        covariance: (c, c) conditional covariance; 0 at drawn points.
        floor: variance under which a point counts as known.
    """

    means: np.ndarray
    covariance: np.ndarray
    floor: float

    @classmethod
    def of(cls, mean: np.ndarray, covariance: np.ndarray, samples: int) -> Paths:
        """Nothing drawn yet, from a mean (c,) and covariance (c, c)."""
        floor = KNOWN * max(float(np.diag(covariance).max(initial=0.0)), 1e-300)
        return cls(np.tile(mean, (samples, 1)), covariance.copy(), floor)

    @property
    def deviations(self) -> np.ndarray:
        """(c,) conditional standard deviations."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))

    def draw(self, point: int, normals: np.ndarray) -> np.ndarray:
        """(s,) values at `point` from standard normals (s,); all else is conditioned on them."""
        variance = self.covariance[point, point]
        if variance > self.floor:
            towards = self.covariance[point] / variance
            self.means += np.outer(np.sqrt(variance) * normals, towards)
            self.covariance -= variance * np.outer(towards, towards)
        self.covariance[point] = self.covariance[:, point] = 0.0
        return np.asarray(self.means[:, point].copy())


def standard_normals(samples: int, columns: int, seed: int) -> np.ndarray:
    """(samples, columns) quasi-random standard normals: a scrambled Sobol sequence."""
    if not columns:
        return np.empty((samples, 0))
    power = max(0, int(samples - 1).bit_length())
    uniform = qmc.Sobol(columns, rng=seed).random_base2(power)[:samples]
    return np.asarray(norm.ppf(np.clip(uniform, 1e-9, 1 - 1e-9)))


def log_excess(z: np.ndarray) -> np.ndarray:
    """Log of E[max(z + Z, 0)] for a standard normal Z, accurate to z of -1e8 (2310.20708)."""
    z = np.asarray(z, dtype=float)
    near = np.maximum(z, -1.0)
    plain = np.log(near * norm.cdf(near) + np.exp(-0.5 * near**2 - LOG_SQRT_2PI))
    far = np.clip(-z, 1.0, 1e8)
    # far below 0 the two terms of the plain formula cancel; erfcx keeps their difference
    ratio = np.sqrt(np.pi / 2) * erfcx(far / np.sqrt(2)) * far
    tail = np.where(far < 1e3, np.log(np.maximum(1 - ratio, 1e-300)), -2 * np.log(far))
    return np.asarray(np.where(z > -1.0, plain, -0.5 * far**2 - LOG_SQRT_2PI + tail))


def log_improvement(paths: Paths, best: np.ndarray) -> np.ndarray:
    """(c,) log of the expected improvement on `best` (s,), over all draws.

    -inf where a point is known and no draw has it below `best`.
    """
    deviations = paths.deviations
    gain = best[:, None] - paths.means
    open_ = deviations**2 > paths.floor
    scale = np.where(open_, deviations, 1.0)
    with np.errstate(divide="ignore"):
        sure = np.log(np.maximum(gain, 0.0))
    logs = np.where(open_, np.log(scale) + log_excess(gain / scale), sure)
    return np.asarray(logsumexp(logs, axis=0) - np.log(len(best)))


def incumbents(mean: np.ndarray, std: np.ndarray, most: int = INCUMBENTS) -> np.ndarray:
    """Indices (<= most,) of those of c observed points that can be the best, best mean first."""
    limit = (mean + DOUBT * std).min(initial=np.inf)
    able = np.flatnonzero(mean - DOUBT * std <= limit)
    return np.asarray(able[np.argsort(mean[able], kind="stable")][:most])


def greedy_improvement(
    mean: np.ndarray,
    covariance: np.ndarray,
    base: Sequence[int],
    free: Sequence[int],
    n: int,
    seed: int,
    blocked: np.ndarray | None = None,
    log_feasible: np.ndarray | None = None,
) -> list[int]:
    """The `n` of `free` with the greatest joint noisy expected improvement, chosen one by one.

    qNEI (2006.05078) in logarithms (2310.20708): the points of `base` (what was observed, and what
    is still running) are drawn jointly, each choice is drawn along before the next, so that no
    two of a batch look for the same improvement.

    Args:
        mean: (c,) of the noise-free objective.
        covariance: (c, c) of it.
        base: points whose values count as had; may be empty.
        free: points to choose from.
        n: how many; all of `free` if it holds fewer.
        seed: of the draws.
        blocked: (c, c) bool: the points that a chosen one rules out.
        log_feasible: (c,) log probability that a point may be chosen at all, independent of the
            objective: improvement is multiplied by it (1403.5607).
    """
    paths = Paths.of(mean, covariance, SAMPLES)
    normals = standard_normals(SAMPLES, len(base) + n, seed)
    # without anything to improve on, the worst that is expected: the first choice is the best mean
    best = np.full(SAMPLES, np.inf)
    for column, point in enumerate(base):
        best = np.minimum(best, paths.draw(point, normals[:, column]))
    if not len(base):
        best[:] = mean[list(free)].max(initial=-np.inf)
    chosen: list[int] = []
    left = np.zeros(len(mean), dtype=bool)
    left[list(free)] = True
    while left.any() and len(chosen) < n:
        score = log_improvement(paths, best) + (0.0 if log_feasible is None else log_feasible)
        score = np.where(left, score, -np.inf)
        tied = np.where(left & (score == score.max()), mean, np.inf)  # all -inf: the best mean
        take = int(tied.argmin())
        chosen.append(take)
        left[take] = False
        if blocked is not None:
            left &= ~blocked[take]
        if len(chosen) < n:
            best = np.minimum(best, paths.draw(take, normals[:, len(base) + len(chosen) - 1]))
    return chosen


def marginal_log_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """(c,) log expected improvement of each point by itself on a known `best`: for screening."""
    scale = np.maximum(std, 1e-12)
    return np.asarray(np.log(scale) + log_excess((best - mean) / scale))
