"""The posterior of one metric's Gaussian process.

Shapes: n trials, b mixtures, m domains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from mixopt.surrogates.gp._law_gp import ABSENT, OFFSET, LawGP, Parameters, law
from mixopt.surrogates.gp._matern import JITTER, distances, matern


@dataclass(frozen=True)
class Posterior:
    """One metric given its trials, standardised: a Gaussian process with the law as its mean.

    The law's parameters are uncertain too: the process has their prior as a part of its kernel,
    linearised at the most probable ones (Rasmussen and Williams 2006, section 2.7).

    Attributes:
        trials: (n, m) x = (r + 1e-7)^γ of the trials.
        gamma: γ.
        law: (3 + m,) the law's most probable parameters.
        away: (3 + m,) prior mean of the parameters less these.
        prior: (3 + m,) their prior variances.
        length: (m,) length scales.
        variance: of the Gaussian process.
        noise: variance of a run.
        slopes: (n, 3 + m) of the law at the trials.
        cholesky: (n, n) lower Cholesky factor of the trials' covariance.
        alpha: (n,) its inverse times what the prior mean leaves.
        calibration: what deviations are multiplied by.
    """

    trials: np.ndarray
    gamma: float
    law: np.ndarray
    away: np.ndarray
    prior: np.ndarray
    length: np.ndarray
    variance: float
    noise: float
    slopes: np.ndarray
    cholesky: np.ndarray
    alpha: np.ndarray
    calibration: float = 1.0

    @classmethod
    def of(
        cls,
        density: LawGP,
        fitted: Parameters,
        i: int,
        weights: np.ndarray,
        values: np.ndarray,
        extra: np.ndarray | float = 0.0,
    ) -> Posterior:
        """Metric `i` given `values` (n,) at `weights` (n, m); NaN where not measured.

        `extra` (n,) is the noise variance of single trials beyond the common one.
        """
        x = (weights + OFFSET) ** fitted.gamma
        mean, slopes = law(x, fitted.law[i])
        away, prior = density.law_mean[i] - fitted.law[i], density.law_variance[i]
        scaled = x / fitted.length[i]
        covariance = fitted.variance[i] * matern(distances(scaled, scaled))
        covariance += (slopes * prior) @ slopes.T
        known = np.isfinite(values)
        covariance.flat[:: len(x) + 1] += fitted.noise[i] + JITTER + np.where(known, extra, ABSENT)
        cholesky = linalg.cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        left = np.where(known, values - mean - slopes @ away, 0.0)
        alpha = linalg.cho_solve((cholesky, True), left, check_finite=False)
        return cls(
            trials=x,
            gamma=fitted.gamma,
            law=fitted.law[i],
            away=away,
            prior=prior,
            length=fitted.length[i],
            variance=float(fitted.variance[i]),
            noise=float(fitted.noise[i]),
            slopes=slopes,
            cholesky=cholesky,
            alpha=alpha,
        )

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(b,) at `weights` (b, m)."""
        x = (weights + OFFSET) ** self.gamma
        mean, slopes = law(x, self.law)
        return np.asarray(mean + slopes @ self.away + self._cross(x, slopes) @ self.alpha)

    def spread(self, weights: np.ndarray) -> np.ndarray:
        """(b,) deviations of the noise-free mean at `weights` (b, m)."""
        x = (weights + OFFSET) ** self.gamma
        slopes = law(x, self.law)[1]
        explained = self._explained(self._cross(x, slopes))
        variance = self.variance + (slopes**2 * self.prior).sum(axis=1) - (explained**2).sum(axis=0)
        return np.asarray(self.calibration * np.sqrt(np.maximum(variance, 1e-12)))

    def covariance(self, weights: np.ndarray) -> np.ndarray:
        """(b, b) of the noise-free mean at `weights` (b, m)."""
        x = (weights + OFFSET) ** self.gamma
        slopes = law(x, self.law)[1]
        explained = self._explained(self._cross(x, slopes))
        prior = self.variance * matern(distances(x / self.length, x / self.length))
        prior += (slopes * self.prior) @ slopes.T
        return np.asarray(self.calibration**2 * (prior - explained.T @ explained))

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Errors and deviations (n,) of each trial's run from the others (ibid., eq. 5.12).

        The law's parameters are found anew for each, as far as its linear part goes; the scales of
        the process and of the noise are not.
        """
        inverse = linalg.cho_solve(
            (self.cholesky, True), np.eye(len(self.cholesky)), check_finite=False
        )
        precision = np.diag(inverse)
        return self.alpha / precision, 1 / np.sqrt(precision)

    def _cross(self, x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        kernel = self.variance * matern(distances(x / self.length, self.trials / self.length))
        return np.asarray(kernel + (slopes * self.prior) @ self.slopes.T)

    def _explained(self, cross: np.ndarray) -> np.ndarray:
        return np.asarray(
            linalg.solve_triangular(self.cholesky, cross.T, lower=True, check_finite=False)
        )
