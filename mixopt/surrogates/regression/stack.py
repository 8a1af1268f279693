"""Several surrogates as one, each weighed by how well it predicts held-out trials.

Shapes: n trials or mixtures, q metrics, k members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from scipy.optimize import nnls

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import (
    FEWEST_TRIALS,
    Prediction,
    Surrogate,
    at_one_fidelity,
    checked,
    error_correlation,
    in_order,
)
from mixopt.surrogates.per_metric import calibration_factor, folds_of, without_noise

MEMBERS = ("linear", "gp", "effective-data", "mixing-law")
FOLDS = 5


class Stack(Surrogate):
    """A weighted mean of members, per metric; weights ≥ 0 that sum to 1 (Breiman 1996).

    Weights are those with which the members' predictions of five held-out folds miss least, drawn
    to equal ones as one more trial per member would; equal where trials are too few to hold some
    out. The deviation is the members' own and how far they are apart, scaled so that nine tenths of
    the errors on folds lie where they should; it holds the noise of a run, so that
    `Prediction.noise` is NaN unless it was given.

    Costs six fits of every member, at one fidelity: the one asked for, or the most frequent.

    Args:
        seed: see `Surrogate`.
        fidelity: see `Surrogate`.
        noise: see `Surrogate`.
        objective: see `Surrogate`.
        members: registry names, or `package.module:Name`.

    Attributes:
        members: their names.
        shares: (k, q) weight of each member in each metric, after `fit`.
    """

    name: ClassVar[str] = "stack"

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
        members: Sequence[str] = MEMBERS,
    ) -> None:
        super().__init__(seed, fidelity, noise, objective)
        if not members:
            raise SurrogateError("a stack needs members", hint="Name at least one surrogate")
        self.members = tuple(members)
        self.shares = np.zeros((len(self.members), 0))
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._fitted: list[Surrogate] = []
        self._calibration = np.ones(0)
        self._correlation: np.ndarray | None = None

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`."""
        trials = in_order(at_one_fidelity(table, self.fidelity))
        q = len(trials.metrics)
        self.shares = np.full((len(self.members), q), 1 / len(self.members))
        self._calibration, self._correlation = np.ones(q), None
        with reproducible(self.seed):
            fold = folds_of(trials.weights, FOLDS, self.seed)
            if _can_hold_out(trials, fold):
                mean, std = self._held_out(trials, fold)
                errors = self._weigh(trials.values, mean, std)
                self._correlation = error_correlation(errors)
            self._fitted = [self._make(name).fit(trials) for name in self.members]
        self._domains, self._metrics = trials.domains, trials.metrics
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        weights = checked(mixtures, self._domains)
        predictions = [member.predict(weights, fidelity) for member in self._fitted]
        mean, std = _mixed(
            np.stack([each.mean for each in predictions]),
            np.stack([_run(each) for each in predictions]),
            self.shares,
        )
        noise = np.array([self.noise.get(metric, np.nan) for metric in self._metrics])
        return Prediction(
            self._metrics,
            mean,
            without_noise(std * self._calibration, noise),
            noise,
            self._correlation,
        )

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        weights = checked(mixtures, self._domains)
        means = np.stack([member.mean(weights, fidelity) for member in self._fitted])
        return np.asarray(np.einsum("knq,kq->nq", means, self.shares))

    def _make(self, name: str) -> Surrogate:
        return make(
            name,
            seed=self.seed,
            fidelity=self.fidelity,
            noise=self.noise,
            objective=self.objective,
        )

    def _held_out(self, trials: TrialTable, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and deviations of a run (k, n, q) by members that had not seen the fold."""
        mean = np.empty((len(self.members), *trials.values.shape))
        std = np.empty_like(mean)
        for number in range(int(fold.max()) + 1):
            out = fold == number
            for k, name in enumerate(self.members):
                prediction = self._make(name).fit(trials.select(~out)).predict(trials.weights[out])
                mean[k, out], std[k, out] = prediction.mean, _run(prediction)
        return mean, std

    def _weigh(self, values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Set shares and calibration from held-out predictions (k, n, q); the errors (n, q)."""
        for j in range(values.shape[1]):
            known = np.isfinite(values[:, j])
            self.shares[:, j] = shares(mean[:, known, j].T, values[known, j])
        together, apart = _mixed(mean, std, self.shares)
        errors = values - together
        for j in range(values.shape[1]):
            known = np.isfinite(errors[:, j])
            self._calibration[j] = calibration_factor(
                errors[known, j : j + 1], apart[known, j : j + 1]
            )[0]
        return np.asarray(errors)


def shares(predictions: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(k,) weights ≥ 0 of sum 1 by which `predictions` (n, k) come nearest to `observed` (n,)."""
    k = predictions.shape[1]
    missed = predictions - observed[:, None]
    loss = (missed**2).mean(axis=0)
    if loss.min() <= 0:
        return np.asarray((loss == loss.min()) / (loss == loss.min()).sum())
    unit = np.sqrt(loss.min())
    # Σ w_k missed_k is the error of the mean where Σ w = 1, which a heavy row holds to
    heavy = 1e3 * np.sqrt(len(predictions)) * np.sqrt(loss.max()) / unit
    rows = np.concatenate([missed / unit, np.eye(k), np.full((1, k), heavy)])
    target = np.concatenate([np.zeros(len(predictions)), np.full(k, 1 / k), [heavy]])
    found = nnls(rows, target)[0]
    return np.asarray(found / found.sum())


def _mixed(mean: np.ndarray, std: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (n, q) of the mixture of members' normals (k, n, q) by shares (k, q)."""
    together = np.einsum("knq,kq->nq", mean, share)
    variance = np.einsum("knq,kq->nq", std**2 + (mean - together) ** 2, share)
    return together, np.sqrt(np.maximum(variance, 0.0))


def _run(prediction: Prediction) -> np.ndarray:
    return np.asarray(np.hypot(prediction.std, np.nan_to_num(prediction.noise)))


def _can_hold_out(trials: TrialTable, fold: np.ndarray) -> bool:
    """Whether every metric keeps enough trials, whichever fold is left out."""
    for number in range(int(fold.max()) + 1):
        known = np.isfinite(trials.values[fold != number])
        if (known.sum(axis=0) < FEWEST_TRIALS).any():
            return False
    return True
