"""The exponential data mixing law (2403.16952), all metrics, starts and folds as one batch.

The law c ± k exp(Σ_j t_j r_j) is fitted as a + (exp(κ b·(r - r̄)) - 1) / κ, with c = a - 1 / κ,
t = κ b and k = exp(-κ b·r̄) / |κ|: the same curves, but a is the value and b the slope at the mean
mixture r̄, and κ, the curvature, passes through 0, where the law is a line. As written, lines lie at
the end of an endless valley (k → ∞, c → -∞), in which half of all fits ran out of iterations.

Shapes: n trials or mixtures, m domains; a group of p metrics measured on k trials; b problems;
θ has m + 2 entries: a, κ, then b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.per_metric import PerMetric, calibration_factor, folds_of
from mixopt.surrogates.regression._least_squares import least_squares

FOLDS, MANY_FOLDS, MANY = 5, 10, 128  # ten folds up to so many trials, where each one counts
TOLERANCE = 1e-7  # of a fit, as a share of its cost
# penalties on squared curvature and on squared slopes, values standardised
PENALTIES = tuple((bent, steep) for bent in (1e-4, 0.01, 0.3) for steep in (1.0, 0.1, 0.01, 1e-3))
SEARCHED = (0.01, 0.01)  # those at which the best start is looked for
# curvatures of the starts, as shares of the most that the values on that side allow
STARTS = (0.05, 0.5, 0.95, -0.5)
STEEPEST = 20.0  # bound of |κ|, and of the exponent while fitting
MOST = 2**24  # doubles in one batch of derivatives: 128 MiB


@dataclass(frozen=True)
class _Batch:
    """b problems over the same k trials: weights less their mean, and what each is to match."""

    weights: Tensor  # (k, m)
    values: Tensor  # (b, k)
    known: Tensor  # (b, k) 1 where a trial counts, 0 where it is held out
    penalty: Tensor  # (b, 2) on curvature and slopes

    def solve(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (b, m + 2) and costs (b,) from `start` (b, m + 2)."""
        m = self.weights.shape[1]
        bound = torch.full((m + 2,), torch.inf, dtype=start.dtype)
        bound[1] = STEEPEST
        at_once = max(1, MOST // ((len(self.weights) + m) * (m + 2)))
        parts = []
        for first in range(0, len(start), at_once):
            some = torch.arange(first, min(first + at_once, len(start)))
            part = self.only(some)
            parts.append(
                least_squares(part._residuals, start[some], -bound, bound, tolerance=TOLERANCE)
            )
        return torch.cat([p.parameters for p in parts]), torch.cat([p.cost for p in parts])

    def only(self, some: Tensor) -> _Batch:
        return _Batch(self.weights, self.values[some], self.known[some], self.penalty[some])

    def precision(self, theta: Tensor) -> Tensor:
        """(b, m + 2, m + 2) JᵀJ and the penalty at `theta`."""
        _, jacobian = self._residuals(theta, torch.arange(len(theta)))
        ridge = 1e-9 * torch.eye(theta.shape[1], dtype=theta.dtype)
        return jacobian.mT @ jacobian + ridge

    def _residuals(self, theta: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        known, m = self.known[some], self.weights.shape[1]
        predicted, slope = law(theta, self.weights)
        bent, steep = self.penalty[some].sqrt().split(1, dim=1)
        root = torch.cat([bent, steep.expand(-1, m)], dim=1)
        prior = torch.cat([torch.zeros_like(root[..., None]), torch.diag_embed(root)], dim=2)
        r = torch.cat([(predicted - self.values[some]) * known, root * theta[:, 1:]], dim=1)
        return r, torch.cat([slope * known[..., None], prior], dim=1)


def law(theta: Tensor, weights: Tensor, most: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values a + (exp(κ b·r) - 1) / κ (b, n) and derivatives (b, n, m + 2).

    Args:
        theta: (b, m + 2) a, κ and b.
        weights: (n, m), less the mean mixture.
        most: (b,) exponents beyond which growth is a logarithm's, not an exponential's.
    """
    bend = theta[:, 1:2]
    straight = theta[:, 2:] @ weights.T
    power = bend * straight
    cap = torch.full_like(bend, STEEPEST) if most is None else most[:, None]
    over = (power - cap).clamp_min(0.0)
    grown = torch.exp(torch.minimum(power, cap))
    # (exp(κu) - 1) / κ and its derivative by κ; their series near κu = 0
    near = power.abs() < 1e-3
    safe = torch.where(near, torch.ones_like(power), bend)
    rest = torch.where(
        near,
        straight * (1 + power / 2 + power**2 / 6 + power**3 / 24),
        (torch.expm1(torch.minimum(power, cap)) + grown * torch.log1p(over)) / safe,
    )
    slope = grown / (1 + over)
    bent = torch.where(
        near,
        straight**2 * (1 / 2 + power / 3 + power**2 / 8 + power**3 / 30),
        (straight * slope - rest) / safe,
    )
    parts = [torch.ones_like(rest)[..., None], bent[..., None], slope[..., None] * weights]
    return theta[:, :1] + rest, torch.cat(parts, dim=2)


@dataclass(frozen=True)
class _Laws:
    """One group: a law per metric, of standardised values."""

    centre: np.ndarray  # (m,) mean weights
    level: np.ndarray  # (p,)
    unit: np.ndarray  # (p,)
    theta: Tensor  # (p, m + 2)
    most: Tensor  # (p,) see `law`
    cholesky: Tensor  # (p, m + 2, m + 2) Cholesky factor of the precision
    scale: np.ndarray  # (p,) deviation of a run predicted from endless data
    errors: np.ndarray

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        predicted, _ = law(self.theta, torch.from_numpy(weights - self.centre), self.most)
        return np.asarray(self.level + self.unit * predicted.T.numpy())

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        _, slope = law(self.theta, torch.from_numpy(weights - self.centre), self.most)
        return np.asarray(self.scale * np.sqrt(1 + _leverage(self.cholesky, slope).T.numpy()))


class MixingLaw(PerMetric):
    """L(r) = c ± k exp(Σ_j t_j r_j) per metric (2403.16952).

    Fitted by Levenberg–Marquardt from four starts, in which the values, with a curvature supposed,
    are turned into a linear regression. A penalty on the slopes, which also settles fewer runs than
    domains, is per metric the one that predicts folds best; the paper has none. Mean absolute
    error on held-out folds of the published 5Mix runs .034 (160M at step 30,000), without
    any penalty .042 (METHODS A). Deviations are Gauss–Newton's, of the law and of a run together,
    scaled so that nine tenths of the errors on folds lie where they should.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "mixing-law"

    def _learn(self, trials: TrialTable) -> _Laws:
        level, unit = trials.values.mean(axis=0), trials.values.std(axis=0)
        centre = trials.weights.mean(axis=0)
        weights = torch.from_numpy(trials.weights - centre)
        values = torch.from_numpy((trials.values - level) / unit).T.contiguous()  # (p, k)
        start = _best_start(weights, values)

        fold = folds_of(trials.weights, MANY_FOLDS if len(trials) <= MANY else FOLDS, self.seed)
        found = [_cross_validate(weights, values, start, fold, each) for each in PENALTIES]
        losses = torch.stack([(fit.errors**2).sum(dim=1) for fit in found])
        chosen, metrics = losses.argmin(dim=0), torch.arange(len(values))
        errors = torch.stack([fit.errors for fit in found])[chosen, metrics].T.numpy() * unit
        apart = torch.stack([fit.leverage for fit in found])[chosen, metrics].T.numpy()
        scale = calibration_factor(errors, np.sqrt(1 + apart))
        theta = torch.stack([fit.theta for fit in found])[chosen, metrics]
        return _Laws(
            centre=centre,
            level=level,
            unit=unit,
            theta=theta,
            most=_steepest(theta, weights),
            cholesky=torch.stack([fit.cholesky for fit in found])[chosen, metrics],
            scale=np.maximum(scale, 1e-12 * np.abs(trials.values).max(axis=0)),
            errors=errors,
        )


def _best_start(weights: Tensor, values: Tensor) -> Tensor:
    """Parameters (p, m + 2) of the best of all starts, at one middling penalty."""
    (k, m), p = weights.shape, len(values)
    gram = weights.T @ weights + SEARCHED[1] * torch.eye(m, dtype=weights.dtype)
    starts = []
    for share in STARTS:
        # 1 + κ value has to be positive for all values
        end = values.amin(dim=1, keepdim=True) if share > 0 else values.amax(dim=1, keepdim=True)
        bend = share / end.abs()
        straight = torch.log1p(bend * values) / bend
        level = straight.mean(dim=1, keepdim=True)
        slopes = torch.linalg.solve(gram, weights.T @ (straight - level).T).T
        starts.append(torch.cat([level, bend, slopes], dim=1))
    many = len(starts)
    batch = _Batch(
        weights,
        values.repeat(many, 1),
        torch.ones(many * p, k, dtype=weights.dtype),
        torch.tensor(SEARCHED, dtype=weights.dtype).expand(many * p, 2),
    )
    theta, cost = batch.solve(torch.cat(starts))
    return theta[cost.view(many, p).argmin(dim=0) * p + torch.arange(p)]


@dataclass(frozen=True)
class _Validated:
    """Fits of p metrics with one penalty to all trials, and their predictions of held-out folds."""

    theta: Tensor  # (p, m + 2)
    cholesky: Tensor  # (p, m + 2, m + 2)
    errors: Tensor  # (p, k) observed minus predicted
    leverage: Tensor  # (p, k) of each trial on what was predicted of it


def _cross_validate(
    weights: Tensor,
    values: Tensor,
    start: Tensor,
    fold: np.ndarray,
    penalty: tuple[float, float],
) -> _Validated:
    (k, _), p, many = weights.shape, len(values), int(fold.max()) + 2
    known = torch.ones(many, p, k, dtype=weights.dtype)  # the first is the fit to all
    for number in range(many - 1):
        known[number + 1, :, torch.from_numpy(fold == number)] = 0.0
    batch = _Batch(
        weights,
        values.repeat(many, 1),
        known.view(-1, k),
        torch.tensor(penalty, dtype=weights.dtype).expand(many * p, 2),
    )
    theta, _ = batch.solve(start.repeat(many, 1))
    errors, leverage = torch.empty(p, k), torch.empty(p, k)
    errors, leverage = errors.to(weights), leverage.to(weights)
    for number in range(many - 1):
        some = torch.arange(p) + (number + 1) * p
        out = torch.from_numpy(np.flatnonzero(fold == number))
        most = _steepest(theta[some], weights[torch.from_numpy(fold != number)])
        predicted, slope = law(theta[some], weights[out], most)
        errors[:, out] = values[:, out] - predicted
        part = torch.linalg.cholesky(batch.only(some).precision(theta[some]))
        leverage[:, out] = _leverage(part, slope)
    whole = torch.linalg.cholesky(batch.only(torch.arange(p)).precision(theta[:p]))
    return _Validated(theta[:p], whole, errors, leverage)


def _steepest(theta: Tensor, weights: Tensor) -> Tensor:
    """(b,) exponents up to which laws that were fitted at `weights` grow exponentially.

    One e² fold further the error on other mixtures from 24 runs (RegMix) was 1.7 times as large.
    """
    return (theta[:, 1:2] * (theta[:, 2:] @ weights.T)).amax(dim=1)


def _leverage(root: Tensor, slope: Tensor) -> Tensor:
    """(b, n) gᵀ A⁻¹ g of slopes g (b, n, m + 2) with A = root rootᵀ (b, m + 2, m + 2)."""
    half: Tensor = torch.linalg.solve_triangular(root, slope.mT, upper=False)
    return (half**2).sum(dim=1)
