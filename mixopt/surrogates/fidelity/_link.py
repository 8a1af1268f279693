"""From one fidelity to the next: y' = a + b f(r) + δ(r) + noise, all metrics together.

Autoregressive co-kriging (Kennedy and O'Hagan 2000; recursively: Le Gratiet and Garnier 2014),
made for the eight runs that a target size can afford: what one metric cannot tell alone, its
slope b, how far it strays and how noisy it is, is shared among all metrics by priors whose own
parameters are fitted to all of them.

In the metrics' own units: from 64 RegMix runs at 1M and 8 at 60M the mean of 13 losses is ranked
.9705, with logarithms .9687 (Spearman, medians of 20 draws).

Shapes: n trials of the upper fidelity, b mixtures, m domains, p metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import linalg
from scipy.optimize import minimize
from torch import Tensor

from mixopt.surrogates.gp._law_model import matern_tensor
from mixopt.surrogates.gp._matern import distances, matern
from mixopt.surrogates.per_metric import calibration_factor, student_factor

OFFSET = 1e-7  # √(r + offset), as the Gaussian processes of one fidelity have it
LEVEL = 100.0  # prior deviation of a, in deviations of the lower fidelity: practically unbounded
STEPS = 60  # of L-BFGS
FARTHEST = 6.0  # prior deviations that a hyperparameter may lie from its mean
# Prior mean and deviation of the logarithms of: the common slope over the expected one, how much
# metrics' slopes differ, how far δ strays, how noisy a run is (all relative to what the lower
# fidelity varies by), and δ's length scales in √r. Wide: eight runs of thirteen metrics move them.
HYPER = np.array([[0.0, 0.3], [-1.5, 0.7], [-2.3, 0.8], [-2.5, 1.0]])
LENGTH = (-0.5, 0.5)
METRIC = 0.5  # deviation of a metric's own log variance and log noise from the common ones
WORTH = 0.5 / METRIC**2  # trials that would tell as much of a metric's variance as that prior does


@dataclass(frozen=True)
class Link:
    """A fitted link.

    Attributes:
        roots: (n, m) √r of the trials.
        length: (m,) length scales of δ.
        centre: (p,) what is taken off f before b multiplies it.
        scale: (p,) how much f varies; the unit of all that follows.
        slope: (p,) prior mean of b.
        tau: deviation of b around it.
        variance: (p,) of δ.
        noise: (p,) variance of a run.
        lower: (n, p) f at the trials, centred and scaled.
        cholesky: (p, n, n) lower Cholesky factors.
        alpha: (p, n) inverse covariances times residuals.
        mean_slope: (p,) posterior mean of b.
        slope_std: (p,) posterior deviation of b.
        level: (p,) posterior mean of a, in the metric's unit.
        calibration: (p,) what deviations are multiplied by.
        errors: (n, p) leave-one-out errors, in the metric's unit; NaN where not measured.
    """

    roots: np.ndarray
    length: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    slope: np.ndarray
    tau: float
    variance: np.ndarray
    noise: np.ndarray
    lower: np.ndarray
    cholesky: np.ndarray
    alpha: np.ndarray
    mean_slope: np.ndarray
    slope_std: np.ndarray
    level: np.ndarray
    calibration: np.ndarray
    errors: np.ndarray

    def mean(self, weights: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """(b, p) at `weights` (b, m), given the lower fidelity's means (b, p)."""
        f = (lower - self.centre) / self.scale
        columns = [
            self.slope[i] * f[:, i] + self._cross(weights, f[:, i], i) @ self.alpha[i]
            for i in range(len(self.scale))
        ]
        return np.asarray(self.centre + self.scale * np.stack(columns, axis=1))

    def own_variance(self, weights: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """(b, p) variances of a + (b - its mean) f + δ: without the lower fidelity's."""
        f = (lower - self.centre) / self.scale
        columns = []
        for i in range(len(self.scale)):
            cross = self._cross(weights, f[:, i], i)
            half = linalg.solve_triangular(
                self.cholesky[i], cross.T, lower=True, check_finite=False
            )
            prior = LEVEL**2 + self.tau**2 * f[:, i] ** 2 + self.variance[i]
            columns.append(np.maximum(prior - (half**2).sum(axis=0), 1e-12))
        return np.asarray(np.stack(columns, axis=1) * (self.scale * self.calibration) ** 2)

    def own_covariance(self, i: int, weights: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """(b, b) the same of metric `i`, between mixtures; `lower` is (b,)."""
        f = (lower - self.centre[i]) / self.scale[i]
        scaled = self._scaled(weights)
        half = linalg.solve_triangular(
            self.cholesky[i], self._cross(weights, f, i).T, lower=True, check_finite=False
        )
        prior = self.variance[i] * matern(distances(scaled, scaled))
        prior += LEVEL**2 + self.tau**2 * np.outer(f, f)
        return np.asarray((prior - half.T @ half) * (self.scale[i] * self.calibration[i]) ** 2)

    def calibrated(self) -> Link:
        """With deviations scaled by Student's factor, as variances from few trials are uncertain.

        One of the trials goes to the level, whose prior is flat. The next link is fitted to the
        unscaled deviations: it would take larger ones for noise.
        """
        factor = student_factor(max(len(self.roots) - 1, 0) + WORTH)
        return replace(self, calibration=self.calibration * factor)

    def run(self, below: np.ndarray) -> np.ndarray:
        """(p,) deviation of a run: at least what is left pooled with that of a run `below` (p,).

        The likeliest noise of four trials can be next to none, all of it being taken for δ.
        """
        trials = max(len(self.roots) - 1, 0)
        own, lower = self.noise * self.scale**2, (self.mean_slope * below) ** 2
        pooled = (trials * own + WORTH * lower) / (trials + WORTH)
        return np.asarray(np.sqrt(np.maximum(own, pooled)))

    def _scaled(self, weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(weights + OFFSET) / self.length)

    def _cross(self, weights: np.ndarray, f: np.ndarray, i: int) -> np.ndarray:
        kernel = matern(distances(self._scaled(weights), self.roots / self.length))
        return np.asarray(
            LEVEL**2 + self.tau**2 * np.outer(f, self.lower[:, i]) + self.variance[i] * kernel
        )


def fit_link(
    weights: np.ndarray,
    values: np.ndarray,
    lower: np.ndarray,
    lower_variance: np.ndarray,
    scale: np.ndarray,
    expected: np.ndarray,
    known_noise: np.ndarray | None = None,
) -> Link:
    """Fit a link to the trials of the upper fidelity.

    Args:
        weights: (n, m) their mixtures.
        values: (n, p) their metrics; NaN where not measured.
        lower: (n, p) the lower fidelity's means at these mixtures.
        lower_variance: (n, p) its variances there.
        scale: (p,) how much the lower fidelity varies over mixtures.
        expected: (p,) the slope that is expected before any trial.
        known_noise: (p,) variance of a run where it was measured, else NaN.
    """
    n, p = values.shape
    known = np.isfinite(values)
    centre = lower.mean(axis=0)
    f, y = (lower - centre) / scale, (np.nan_to_num(values) - centre) / scale
    extra = np.where(known, lower_variance / scale**2, 1e6)
    fixed = np.full(p, np.nan) if known_noise is None else known_noise / scale**2
    search = _Search(np.sqrt(weights + OFFSET), f, y, extra, expected, fixed)
    beta, tau, variance, noise, length = search.fit()
    roots, slope = np.sqrt(weights + OFFSET), beta * expected
    kernel = matern(distances(roots / length, roots / length))
    cholesky, alpha, errors, shares = np.empty((p, n, n)), np.empty((p, n)), np.empty((n, p)), []
    mean_slope, slope_std, level = np.empty(p), np.empty(p), np.empty(p)
    for i in range(p):
        covariance = LEVEL**2 + tau**2 * np.outer(f[:, i], f[:, i]) + variance[i] * kernel
        covariance.flat[:: n + 1] += noise[i] + slope[i] ** 2 * extra[:, i] + 1e-8
        cholesky[i] = linalg.cholesky(covariance, lower=True, check_finite=False)
        residual = np.where(known[:, i], y[:, i] - slope[i] * f[:, i], 0.0)
        alpha[i] = linalg.cho_solve((cholesky[i], True), residual, check_finite=False)
        inverse = linalg.cho_solve((cholesky[i], True), np.eye(n), check_finite=False)
        errors[:, i] = np.where(known[:, i], alpha[i] / np.diag(inverse), np.nan)
        shares.append(errors[:, i] * np.sqrt(np.diag(inverse)))
        mean_slope[i] = slope[i] + tau**2 * f[:, i] @ alpha[i]
        slope_std[i] = np.sqrt(max(tau**2 - tau**4 * f[:, i] @ inverse @ f[:, i], 1e-12))
        level[i] = centre[i] + scale[i] * LEVEL**2 * alpha[i].sum()
    together = np.concatenate(shares)
    together = together[np.isfinite(together)]
    calibration = 1.0
    if n > 2:
        calibration = max(
            1.0, float(calibration_factor(together[:, None], np.ones((len(together), 1)))[0])
        )
    return Link(
        roots=roots,
        length=length,
        centre=centre,
        scale=scale,
        slope=slope,
        tau=tau,
        variance=variance,
        noise=noise,
        lower=f,
        cholesky=cholesky,
        alpha=alpha,
        mean_slope=mean_slope,
        slope_std=slope_std,
        level=level,
        calibration=np.full(p, calibration),
        errors=errors * scale,
    )


class _Search:
    """Hyperparameters of a link, whitened: four common ones, m length scales, 2 p of metrics."""

    def __init__(
        self,
        roots: np.ndarray,
        f: np.ndarray,
        y: np.ndarray,
        extra: np.ndarray,
        expected: np.ndarray,
        fixed: np.ndarray,
    ) -> None:
        self.roots, self.extra, self.expected = map(torch.from_numpy, (roots, extra.T, expected))
        self.f, self.y = torch.from_numpy(f.T.copy()), torch.from_numpy(y.T.copy())
        self.known, self.fixed = torch.from_numpy(np.isfinite(fixed)), torch.from_numpy(fixed)
        self.m, self.p = roots.shape[1], len(expected)

    def fit(self) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray]:
        """β, τ, variances and noises (p,) and length scales (m,), most probable together."""
        start = np.zeros(4 + self.m + 2 * self.p)
        # a line search over noisy scores once went 24,600 deviations out, to infinite variances
        found = minimize(
            self._density,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-FARTHEST, FARTHEST)] * len(start),
            options={"maxiter": STEPS},
        )
        beta, tau, variance, noise, length = self._unfold(torch.from_numpy(found.x))
        return (
            float(beta),
            float(tau),
            variance.numpy(),
            noise.numpy(),
            length.numpy(),
        )

    def _unfold(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        hyper = torch.from_numpy(HYPER)
        common = hyper[:, 0] + hyper[:, 1] * z[:4]
        length = (LENGTH[0] + LENGTH[1] * z[4 : 4 + self.m]).exp()
        own = METRIC * z[4 + self.m :].reshape(2, self.p)
        noise = (2 * (common[3] + own[1])).exp()
        noise = torch.where(self.known, self.fixed, noise)
        return common[0].exp(), common[1].exp(), (2 * (common[2] + own[0])).exp(), noise, length

    def _density(self, whitened: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(whitened.copy()).requires_grad_(True)
        beta, tau, variance, noise, length = self._unfold(z)
        slope = beta * self.expected
        scaled = self.roots / length
        kernel = matern_tensor(scaled, scaled)
        own = noise[:, None] + slope[:, None] ** 2 * self.extra + 1e-8
        covariance = LEVEL**2 + tau**2 * self.f[:, :, None] * self.f[:, None, :]
        covariance = covariance + variance[:, None, None] * kernel + torch.diag_embed(own)
        cholesky = torch.linalg.cholesky(covariance)
        residual = (self.y - slope[:, None] * self.f).unsqueeze(-1)
        half = torch.linalg.solve_triangular(cholesky, residual, upper=False)
        log_root = cholesky.diagonal(dim1=-2, dim2=-1).log().sum()
        value = 0.5 * (half**2).sum() + log_root + 0.5 * (z**2).sum()
        (slope_z,) = torch.autograd.grad(value, z)
        return float(value.detach()), slope_z.numpy()
