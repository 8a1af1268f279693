"""The effective-data law with a Gaussian process on what it leaves: density, gradient, fit.

For metric i, standardised to mean 0 and deviation 1 over the trials, and x_j = (r_j + 1e-7)^γ:

    z_i(r) = E_i - B_i log(s0_i + Σ_j s_ij x_j) + GP_i(x) + noise,   s, s0, B > 0,  0 < γ < 1
    GP_i: Matérn-5/2, variance v_i, a length scale l_ij per domain

A domain's loss falls with the logarithm of the effective data that it gets from all domains. All
metrics are fitted together by one maximum a posteriori: they share γ, a floor h of the noise, and
the prior mean μ_j of their length scales. Found for this project; published nowhere.

Parameters are searched for as whitened numbers ζ ~ N(0, 1), parameter = prior mean + deviation x ζ.

Shapes: n trials, m domains, q metrics, g of them worked on at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.blas import dsymm, dsymv
from scipy.optimize import minimize

from mixopt.surrogates.gp._matern import JITTER, Correlations, invert

OFFSET = 1e-7  # keeps the logarithm and the power of an absent domain's weight finite
ABSENT = 1e6  # noise variance of a value that was not measured: it has no weight
# Of L-BFGS, from few trials and from many. The error on held-out runs of 10 5Mix mixtures falls by
# a seventh from 80 to 150; from 24 RegMix runs on it rises by 1 to 3 %.
ITERATIONS = (150, 80)
MANY = 50  # trials from which on the fewer iterations do
TOGETHER = 2**15  # entries of the covariances that are worked on at once: what a cache holds
MEMORY = 20  # pairs of steps and gradients that L-BFGS keeps


@dataclass(frozen=True)
class Priors:
    """Means and deviations of the normal priors, by parameter (see the module).

    Attributes:
        gamma: of logit γ.
        floor: deviation of h, which is normal and at least 0; every log noise is raised by it.
        log_length: of μ_j around √2 + ½ ln m - 1 (2402.02229's dimension-scaled prior, shortened).
        tie: deviation of log l_ij around μ_j.
        level: of E.
        log_effect: of log B.
        log_ground: of log s0.
        log_share: of log s: most domains help a metric little, a few very much.
        log_variance: of log v.
        log_noise: of log noise variance.
    """

    gamma: tuple[float, float] = (2.0, 1.0)
    floor: float = 2.0
    log_length: tuple[float, float] = (0.0, 1.5)
    tie: float = 0.5
    level: tuple[float, float] = (0.0, 3.0)
    log_effect: tuple[float, float] = (-0.7, 1.0)
    log_ground: tuple[float, float] = (-5.0, 1.0)
    log_share: tuple[float, float] = (-5.0, 2.0)
    log_variance: tuple[float, float] = (-1.0, 1.0)
    log_noise: tuple[float, float] = (-4.0, 1.0)


@dataclass(frozen=True)
class Parameters:
    """A point of the search, in the units of the module's formula.

    Attributes:
        gamma: γ.
        law: (q, 3 + m) E, log B, log s0, log s_1 … log s_m.
        variance: (q,) v.
        noise: (q,) noise variance.
        length: (q, m) l.
    """

    gamma: float
    law: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    length: np.ndarray


class LawGP:
    """The posterior density of the parameters, given trials.

    Args:
        weights: (n, m) mixtures.
        values: (n, q) standardised metrics; NaN where not measured.
        known_noise: (q,) standardised noise variance where it was measured, NaN where not.
        extra: (n,) noise variance that single trials have beyond the common one, or (n, q).
        priors: of the parameters.
    """

    def __init__(
        self,
        weights: np.ndarray,
        values: np.ndarray,
        known_noise: np.ndarray | None = None,
        extra: np.ndarray | None = None,
        priors: Priors | None = None,
    ) -> None:
        p = self.priors = priors or Priors()
        self.weights, self.log_weights = weights, np.log(weights + OFFSET)
        self.values = np.nan_to_num(values)
        (n, m), q = weights.shape, values.shape[1]
        own = np.zeros(n) if extra is None else extra
        own = own[:, None] if own.ndim == 1 else own
        self.extra = np.where(np.isfinite(values), own, ABSENT).T  # (q, n)
        self.shape = n, m, q
        self._together = min(q, max(1, TOGETHER // n**2))
        self._near = Correlations(self._together, n)
        length = np.sqrt(2) + 0.5 * np.log(m) - 1 + p.log_length[0]
        self.shared_mean = np.r_[p.gamma[0], 0.0, np.full(m, length)]
        self.shared_std = np.r_[p.gamma[1], p.floor, np.full(m, p.log_length[1])]
        own_priors = [p.level, p.log_effect, p.log_ground, *[p.log_share] * m]
        mean, std = np.array([*own_priors, p.log_variance, p.log_noise]).T
        self.own_mean, self.own_std = np.tile(mean, (q, 1)), np.tile(std, (q, 1))
        self.floored = np.ones(q)
        if known_noise is not None:
            measured = np.isfinite(known_noise)
            self.own_mean[measured, -1] = np.log(known_noise[measured])
            self.own_std[measured, -1] = 0.05
            self.floored = (~measured).astype(float)

    @property
    def law_mean(self) -> np.ndarray:
        """(q, 3 + m) prior means of the law's parameters."""
        return self.own_mean[:, :-2]

    @property
    def law_variance(self) -> np.ndarray:
        """(q, 3 + m) prior variances of the law's parameters."""
        return self.own_std[:, :-2] ** 2

    def start(self) -> np.ndarray:
        """Whitened parameters to begin at: short length scales, variance and noise like the data's.

        Longer scales, or less noise, can end where all is noise: of 32 ADMIRE runs (17 noisy
        scores) unseen ones were ranked .2 from there, at a density e^30 lower, and .6 from here.
        """
        _, m, q = self.shape
        shared, own = np.zeros(2 + m), np.zeros((q, 5 + m))
        shared[1] = 1.0
        shared[2:] = -2 / self.shared_std[2:]
        own[:, -2] = 1 / self.own_std[:, -2]
        return np.concatenate([shared, own.ravel(), np.zeros(q * m)])

    def fit(self, iterations: int | None = None) -> Parameters:
        """The most probable parameters that L-BFGS reaches in so many steps."""
        if iterations is None:
            iterations = ITERATIONS[int(self.shape[0] >= MANY)]
        start = self.start()
        bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(start)
        bounds[1] = (0.0, None)
        found = minimize(
            self.density,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": iterations, "maxcor": MEMORY},
        )
        return self.parameters(found.x)

    def parameters(self, whitened: np.ndarray) -> Parameters:
        """`whitened` in the units of the formula."""
        shared, own, length = self._unfold(whitened)
        return Parameters(
            gamma=float(1 / (1 + np.exp(-shared[0]))),
            law=own[:, :-2],
            variance=np.exp(own[:, -2]),
            noise=np.exp(own[:, -1]),
            length=np.exp(length),
        )

    def _unfold(self, whitened: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shared (2 + m,) and own (q, 5 + m) parameters, log length scales (q, m)."""
        _, m, q = self.shape
        end = 2 + m + q * (5 + m)
        shared = self.shared_mean + self.shared_std * whitened[: 2 + m]
        own = self.own_mean + self.own_std * whitened[2 + m : end].reshape(q, -1)
        own[:, -1] += self.floored * shared[1]
        length = shared[2:] + self.priors.tie * whitened[end:].reshape(q, m)
        return shared, own, length

    def density(self, whitened: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior density, up to a constant, and its gradient by ζ.

        Infeasible covariances (rounding) give a very large value, from which a line search turns
        back.
        """
        q = self.shape[2]
        shared, own, length = self._unfold(whitened)
        gamma = 1 / (1 + np.exp(-shared[0]))
        x = np.exp(gamma * self.log_weights)
        value = 0.5 * float(whitened @ whitened)
        own_slope, length_slope = np.zeros_like(own), np.zeros_like(length)
        x_slope = np.zeros_like(x)
        for first in range(0, q, self._together):
            rows = slice(first, first + self._together)
            found = self._metrics(rows, x, own[rows], length[rows])
            if found is None:
                return 1e10, np.zeros_like(whitened)
            value += found[0]
            own_slope[rows], length_slope[rows] = found[1], found[2]
            x_slope += found[3]
        shared_slope = np.concatenate(
            [
                [(x_slope * x * self.log_weights).sum() * gamma * (1 - gamma)],
                [self.floored @ own_slope[:, -1]],
                length_slope.sum(axis=0),
            ]
        )
        slope = np.concatenate(
            [
                shared_slope * self.shared_std,
                (own_slope * self.own_std).ravel(),
                (self.priors.tie * length_slope).ravel(),
            ]
        )
        return value, slope + whitened

    def _metrics(
        self, rows: slice, x: np.ndarray, own: np.ndarray, log_length: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray] | None:
        """Negative log likelihood of g metrics; gradients by their own parameters, log l and x.

        Elementwise passes over covariances cost as much as factoring them: the traces that need
        none are had from inverse x (v K + noise) = 1.
        """
        n = self.shape[0]
        variance, noise = np.exp(own[:, -2:]).T
        self._near.fill(x * np.exp(-log_length)[:, None])
        kernel, decay = self._near.kernel, self._near.decay
        apart = self.extra[rows] + (noise + JITTER)[:, None]  # (g, n)
        kernel *= variance[:, None, None]
        np.einsum("gii->gi", kernel)[...] += apart
        log_determinant = invert(kernel)
        if log_determinant is None:
            return None
        inverse = kernel
        effect, ground, shares = np.exp(own[:, 1]), np.exp(own[:, 2]), np.exp(own[:, 3:-2])
        data = ground[:, None] + shares @ x.T
        logs = np.log(data)
        residual = self.values.T[rows] - own[:, :1] + effect[:, None] * logs
        alpha = np.empty_like(residual)
        for i, matrix in enumerate(_turned(inverse)):
            alpha[i] = dsymv(1.0, matrix, residual[i], lower=1)
        value = 0.5 * float((residual * alpha).sum()) + 0.5 * log_determinant
        diagonal = np.einsum("gii->gi", inverse)
        explained = n - (diagonal * apart).sum(axis=1)
        explained -= (alpha * (residual - apart * alpha)).sum(axis=1)
        # d mean / d log s_j = -B s_j x_j / u, and d mean / d x_j = -B s_j / u
        rate = effect[:, None] * alpha / data
        own_slope = np.column_stack(
            [
                -alpha.sum(axis=1),
                effect * (alpha * logs).sum(axis=1),
                ground * rate.sum(axis=1),
                shares * (rate @ x),
                0.5 * explained,
                0.5 * noise * (diagonal.sum(axis=1) - (alpha**2).sum(axis=1)),
            ]
        )
        # the slope by squared distances, times x and times 1: totals need no pass of their own
        columns = np.column_stack([x, np.ones(n)])
        mixed = -alpha[..., None] * (decay @ (alpha[..., None] * columns))
        inverse *= decay
        for i, weighted in enumerate(_turned(inverse)):
            mixed[i] += dsymm(1.0, weighted, columns, lower=1)
        mixed *= (-5 / 12) * variance[:, None, None]
        mixed, total = mixed[..., :-1], mixed[..., -1:]
        shrink = np.exp(-2 * log_length)
        length_slope = -4 * shrink * (total * x**2 - x * mixed).sum(axis=1)
        x_slope = 4 * (shrink[:, None] * (total * x - mixed)).sum(axis=0)
        return value, own_slope, length_slope, x_slope + rate.T @ shares


def _turned(matrices: np.ndarray) -> Iterator[np.ndarray]:
    """Each of `matrices` (g, n, n) as BLAS stores one: what `invert` filled is its lower half."""
    return (matrix.T for matrix in matrices)


def law(x: Any, parameters: Any, xp: Any = np) -> tuple[Any, Any]:
    """The law (..., n) at x (..., n, m), and its slopes (..., n, 3 + m).

    The slopes are by E, log B, log s0 and log s.

    Args:
        x: (r + 1e-7)^γ.
        parameters: (3 + m,) of one metric.
        xp: the library of both, `numpy` or `torch`.
    """
    level, effect, ground = parameters[0], xp.exp(parameters[1]), xp.exp(parameters[2])
    shares = xp.exp(parameters[3:])
    data = ground + x @ shares
    logs = xp.log(data)
    whole = xp.stack([xp.ones_like(data), -effect * logs, -effect * ground / data], axis=-1)
    own = (-effect / data)[..., None] * (x * shares)
    return level - effect * logs, xp.concatenate([whole, own], axis=-1)
