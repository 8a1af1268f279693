"""Ridge regression on the square roots of the weights: the quick fallback.

Shapes: n trials or mixtures, m domains, q metrics; a group of p metrics measured on k trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import JointSurrogate, checked, compose_joint
from mixopt.surrogates.gp._law_gp import OFFSET
from mixopt.surrogates.per_metric import PerMetric, without_noise
from mixopt.surrogates.regression._ridge import Ridge, fit_ridge

if TYPE_CHECKING:
    from botorch.models.model import Model


def roots(weights: np.ndarray) -> np.ndarray:
    """√w (n, m), as the Gaussian process takes it."""
    return np.asarray(np.sqrt(weights + OFFSET))


@dataclass(frozen=True)
class _Line:
    """One group: the ridge regression, and the trials that it came from."""

    ridge: Ridge
    trials: TrialTable

    @property
    def errors(self) -> np.ndarray:
        return self.ridge.errors

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        return self.ridge.mean(roots(weights))

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        return self.ridge.std(roots(weights))


class Linear(PerMetric, JointSurrogate):
    """Bayesian linear regression on √w, its penalty per metric the best for held-out mixtures.

    Milliseconds. It ranks noisy scores better than a Gaussian process does: on the ADMIRE table,
    Spearman .546 / .673 / .714 from 32 / 64 / 128 runs against .572 / .615 / .681 (METHODS A).
    Deviations are those of the regression and of a run together, scaled so that nine tenths of the
    leave-one-out errors lie where they should.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "linear"

    def _learn(self, trials: TrialTable) -> _Line:
        return _Line(fit_ridge(roots(trials.weights), trials.values, trials.weights), trials)

    @property
    def modelled(self) -> tuple[str, ...]:
        """See `JointSurrogate.modelled`."""
        return tuple(metric for metrics, _ in self._lines for metric in metrics)

    @property
    def model(self) -> Model:
        """See `JointSurrogate.model`; its variance is the regression's alone.

        A misfit that no line mends differs from mixture to mixture without any pattern, so that
        acquisition could only chase it: `predict` and `joint` have it, the model has it as noise.
        """
        if not self._lines:
            raise SurrogateError("no metric varies over the trials, so there is no model")
        from mixopt.surrogates.regression._line_model import (
            line_model,  # torch, which fits need not load
        )

        return line_model([(line.ridge, line.trials) for _, line in self._lines])

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`."""
        weights = checked(mixtures, self._domains)
        covariances = {}
        with reproducible(self.seed):
            means = self._means(weights, None)
            for metrics, line in self._lines:
                shared = line.ridge.covariance(roots(weights))
                noise = np.array([self.noise.get(metric, np.nan) for metric in metrics])
                total = without_noise(line.std(weights, None), noise) ** 2
                for j, metric in enumerate(metrics):
                    covariances[metric] = _with_diagonal(shared[j], total[:, j])
        return compose_joint(objective, self._metrics, means, covariances, self._correlation)

    @property
    def _lines(self) -> list[tuple[tuple[str, ...], _Line]]:
        return [(metrics, part) for metrics, part in self._groups if isinstance(part, _Line)]


def _with_diagonal(shared: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`shared` (b, b) with `total` (b,) on its diagonal, still a covariance.

    Where the total is less than what is shared (a large measured noise), all of it shrinks.
    """
    own = np.diag(shared)
    shrink = np.minimum(1.0, np.sqrt(total / np.maximum(own, 1e-300)))
    covariance = shared * np.outer(shrink, shrink)
    np.fill_diagonal(covariance, total)
    return np.asarray(covariance)
