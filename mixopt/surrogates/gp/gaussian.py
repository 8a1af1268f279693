"""The posterior of all metrics' Gaussian processes: what `effective-data` and `gp` have in common.

Shapes: n trials, b mixtures, m domains, q metrics of which p vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import (
    JointSurrogate,
    Prediction,
    at_one_fidelity,
    checked,
    compose_joint,
    error_correlation,
    in_order,
    measured,
)
from mixopt.surrogates.gp._law_gp import LawGP, Priors
from mixopt.surrogates.gp._law_slopes import posterior_slopes
from mixopt.surrogates.gp._posterior import Posterior
from mixopt.surrogates.gp.warp import Warp
from mixopt.surrogates.per_metric import calibration_factor

if TYPE_CHECKING:
    from botorch.models.model import Model

LEARN_FROM = 256  # trials that parameters are fitted to; the posterior uses all
BLOCK = 4096  # mixtures predicted at once
SURE = 30  # held-out errors at which a metric's own width counts as much as that of all


class Gaussian(JointSurrogate):
    """Gaussian processes with a mean that may follow a law, fitted together (see `_law_gp`).

    Losses are modelled by their logarithms (see `warp`). Deviations know that the mean's parameters
    are uncertain, and are scaled up, never down, until nine tenths of the leave-one-out errors
    lie where they should.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    supports_row_noise: ClassVar[bool] = True
    priors: ClassVar[Priors]
    winsorized: ClassVar[bool] = False
    """Whether outliers are winsorized first (see `winsorize`); `predict` transforms back, `model`
    and `joint` do not."""

    def _clear(self) -> None:
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._constant: dict[str, float] = {}
        self._varying: list[int] = []
        self._posteriors: list[Posterior] = []
        self._warp: Warp | None = None
        self._correlation = np.eye(0)

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; 13 metrics of 64 trials take half a second on one core."""
        trials = in_order(at_one_fidelity(table, self.fidelity))
        self._constant, self._varying = {}, []
        for j, metric in enumerate(trials.metrics):
            _, _, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
            else:
                self._varying.append(j)
        self._domains, self._metrics = trials.domains, trials.metrics
        self._posteriors, self._correlation = [], np.eye(len(trials.metrics))
        if self._varying:
            with reproducible(self.seed):
                columns = self._varying
                self._fit(trials.weights, trials.values[:, columns], trials.noise_std[:, columns])
        return self

    def _fit(self, weights: np.ndarray, values: np.ndarray, noise_std: np.ndarray) -> None:
        self._warp = warp = Warp.of(values, self.winsorized)
        warped = warp.forward(values)
        predicted = noise_std > 0
        extra = np.zeros_like(values)
        if predicted.any():
            extra = np.where(predicted, np.square(noise_std / warp.slope(values)), 0.0)
        order = np.random.default_rng(self.seed).permutation(len(weights))
        some = self._balanced(order, values)
        noise = self._known_noise(warp, values)
        density = LawGP(weights[some], warped[some], noise, extra[some], priors=self.priors)
        fitted = density.fit()
        held = [
            Posterior.of(density, fitted, i, weights[some], warped[some, i], extra[some, i])
            for i in range(values.shape[1])
        ]
        errors, deviations = np.stack([p.leave_one_out() for p in held], axis=2)
        unknown = ~np.isfinite(warped[some]) | predicted[some]
        errors[unknown] = deviations[unknown] = np.nan
        # Scales are not fitted anew for each trial left out, which flatters the more domains there
        # are to a trial: held-out RegMix runs asked for 1.19, 1.17, 1.14, 1.07, 1.03 times the
        # width at 24, 32, 64, 128, 256 runs of 17 domains.
        flattered = np.sqrt(1 + min(0.4, weights.shape[1] / len(some)))
        calibration = flattered * _widths(errors, deviations)
        if len(some) < len(weights):
            held = [
                Posterior.of(density, fitted, i, weights, warped[:, i], extra[:, i])
                for i in range(values.shape[1])
            ]
        self._posteriors = [
            replace(posterior, calibration=width)
            for posterior, width in zip(held, calibration.tolist(), strict=True)
        ]
        tied = error_correlation(errors)
        self._correlation[np.ix_(self._varying, self._varying)] = tied

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        return Prediction(self._metrics, *self.whole(mixtures), self._correlation)

    def whole(self, mixtures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means and deviations (b, q) and noises (q,) of `predict`."""
        weights = checked(mixtures, self._domains)
        mean = self.mean(weights)
        std, noise = np.zeros_like(mean), np.zeros(len(self._metrics))
        if self._warp is not None and self._varying:
            with reproducible(self.seed):
                for at in range(0, len(weights), BLOCK):
                    rows = slice(at, at + BLOCK)
                    spread = [p.spread(weights[rows]) for p in self._posteriors]
                    std[rows, self._varying] = np.stack(spread, axis=1)
            slope = self._warp.slope(mean[:, self._varying])
            std[:, self._varying] *= slope
            # a run's noise is in proportion to a logged metric; reported at its typical value
            typical = self._warp.slope(self._warp.back(np.zeros((1, len(self._varying)))))[0]
            own = np.sqrt([p.noise for p in self._posteriors])
            noise[self._varying] = own * typical
            for j, metric in enumerate(self._metrics):
                noise[j] = self.noise.get(metric, noise[j])
        return mean, std, noise

    @property
    def domains(self) -> tuple[str, ...] | None:
        """Of the fitted trials; None before `fit`."""
        return self._domains

    @property
    def error_correlation(self) -> np.ndarray:
        """(q, q) correlation of held-out errors."""
        return self._correlation

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        weights = checked(mixtures, self._domains)
        mean = np.empty((len(weights), len(self._metrics)))
        for metric, value in self._constant.items():
            mean[:, self._metrics.index(metric)] = value
        if self._warp is not None and self._varying:
            with reproducible(self.seed):
                for at in range(0, len(weights), BLOCK):
                    rows = slice(at, at + BLOCK)
                    warped = np.stack([p.mean(weights[rows]) for p in self._posteriors], axis=1)
                    mean[rows, self._varying] = self._warp.back(warped)
        return mean

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`."""
        weights = checked(mixtures, self._domains)
        mean, spread = self.mean(weights), {}
        if self._warp is not None and self._varying:
            slope = self._warp.slope(mean[:, self._varying])
            with reproducible(self.seed):
                for i, (j, posterior) in enumerate(
                    zip(self._varying, self._posteriors, strict=True)
                ):
                    if self._metrics[j] in objective.weights:
                        scale = np.outer(slope[:, i], slope[:, i])
                        spread[self._metrics[j]] = scale * posterior.covariance(weights)
        return compose_joint(objective, self._metrics, mean, spread, self._correlation)

    @property
    def modelled(self) -> tuple[str, ...]:
        """See `JointSurrogate.modelled`."""
        return tuple(self._metrics[j] for j in self._varying)

    @property
    def model(self) -> Model:
        """See `JointSurrogate.model`."""
        if self._warp is None or not self._posteriors:
            raise SurrogateError("no metric varies over the trials, so there is no model")
        from mixopt.surrogates.gp._law_model import LawModel  # torch, which fits need not load

        return LawModel(self._posteriors, self._warp)

    def slopes(self, mixtures: np.ndarray) -> tuple[np.ndarray, ...]:
        """The moments of `model` and their slopes by the weights, without torch.

        Returns:
            mean and deviation (b, p) of `modelled` at `mixtures` (b, m); their slopes (b, p, m).
        """
        weights = checked(mixtures, self._domains)
        found = [posterior_slopes(posterior, weights) for posterior in self._posteriors]
        if self._warp is None or not found:
            raise SurrogateError("no metric varies over the trials, so there is no model")
        mean, std, mean_slope, std_slope = (
            np.stack(part, axis=1) for part in zip(*found, strict=True)
        )
        warp = self._warp
        level = warp.centre + warp.scale * mean
        level = np.where(warp.logged, np.exp(np.where(warp.logged, level, 0.0)), level)
        steep = warp.scale * np.where(warp.logged, level, 1.0)
        mean_slope = steep[..., None] * mean_slope
        std_slope = steep[..., None] * std_slope
        std_slope += np.where(warp.logged, warp.scale * std, 0.0)[..., None] * mean_slope
        return level, steep * std, mean_slope, std_slope

    def _balanced(self, order: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The first `LEARN_FROM` of `order`, and of every metric at least what others have."""
        some = order[:LEARN_FROM]
        few = np.isfinite(values[some]).sum(axis=0) < min(3, len(order))
        if few.any():  # a metric that was measured on few trials: those first
            rare = np.isfinite(values[:, few]).any(axis=1)
            some = np.concatenate([order[rare[order]], order[~rare[order]]])[:LEARN_FROM]
        return some if len(order) > LEARN_FROM else np.arange(len(order))

    def _known_noise(self, warp: Warp, values: np.ndarray) -> np.ndarray:
        """(p,) standardised variance of a run where it was measured, NaN where not."""
        typical = warp.slope(np.nanmedian(values, axis=0)[None])[0]
        known = [self.noise.get(self._metrics[j], np.nan) for j in self._varying]
        return np.asarray((np.maximum(known, 1e-6 * typical) / typical) ** 2)


def _widths(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """(p,) what deviations must be multiplied by, from held-out errors (n, p); at least 1.

    From few trials a metric's own quantile is mostly noise, so that it is shrunk to that of all.
    """
    together = calibration_factor(
        errors[np.isfinite(errors)][:, None], deviations[np.isfinite(errors)][:, None]
    )
    widths = []
    for error, deviation in zip(errors.T, deviations.T, strict=True):
        known = np.isfinite(error)
        alone = calibration_factor(error[known, None], deviation[known, None])
        share = known.sum() / (known.sum() + SURE)
        widths.append(share * alone + (1 - share) * together)
    return np.asarray(np.maximum(1.0, np.concatenate(widths)))
