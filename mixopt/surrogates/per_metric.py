"""What regressions that fit metric by metric share: everything but the regression.

A regression here predicts one more run of every mixture; it cannot separate a run's noise from the
error of its own form. So `Prediction.noise` is NaN unless it
was measured, and a measured noise is taken out of the deviation.

Shapes: n trials or mixtures, m domains, q metrics; a group of p metrics measured on k trials.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol, Self

import numpy as np
from scipy.stats import t as student

from mixopt.core.intervals import NORMAL_90
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import (
    Prediction,
    Surrogate,
    at_one_fidelity,
    checked,
    error_correlation,
    in_order,
    measured,
)

TIED = 8.0  # high-fidelity trials that the correlation of low-fidelity errors counts as


class Regression(Protocol):
    """A fit to p metrics that were measured on the same k trials."""

    @property
    def errors(self) -> np.ndarray:
        """(k, p) observed minus predicted by a fit that had not seen the trial's mixture."""

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        """(n, p) at `weights` (n, m)."""

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        """(n, p) deviation of one more run at `weights` (n, m) from its mean."""


class PerMetric(Surrogate):
    """A surrogate that is a `Regression` per group of metrics measured on the same trials.

    Derived classes say how to `_learn` one. A metric that does not vary is left out of it.
    """

    def _clear(self) -> None:
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._constant: dict[str, float] = {}
        self._groups: list[tuple[tuple[str, ...], Regression]] = []
        self._correlation = np.eye(0)

    @abstractmethod
    def _learn(self, trials: TrialTable) -> Regression:
        """Fit all metrics of `trials`, which vary and have no gaps, on one thread."""

    def _trials(self, table: TrialTable) -> TrialTable:
        """The rows of `table` that are learned from."""
        return at_one_fidelity(table, self.fidelity)

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`."""
        trials = in_order(self._trials(table))
        self._constant, self._groups = {}, []
        errors = np.zeros((len(trials), len(trials.metrics)))
        with reproducible(self.seed):
            for rows, metrics in self._measured_alike(trials):
                columns = [trials.metrics.index(metric) for metric in metrics]
                regression = self._learn(trials.select(rows).with_metrics(metrics))
                self._groups.append((metrics, regression))
                errors[:, columns] = np.nan
                errors[rows[:, None], columns] = regression.errors
        self._domains, self._metrics = trials.domains, trials.metrics
        self._correlation = error_correlation(errors)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        weights = checked(mixtures, self._domains)
        std = np.zeros((len(weights), len(self._metrics)))
        with reproducible(self.seed):
            mean = self._means(weights, fidelity)
            for metrics, regression in self._groups:
                columns = [self._metrics.index(metric) for metric in metrics]
                std[:, columns] = regression.std(weights, fidelity)
        noise = np.array([self.noise.get(metric, np.nan) for metric in self._metrics])
        return Prediction(self._metrics, mean, without_noise(std, noise), noise, self._correlation)

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        with reproducible(self.seed):
            return self._means(checked(mixtures, self._domains), fidelity)

    def _means(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        mean = np.empty((len(weights), len(self._metrics)))
        for metric, value in self._constant.items():
            mean[:, self._metrics.index(metric)] = value
        for metrics, regression in self._groups:
            columns = [self._metrics.index(metric) for metric in metrics]
            mean[:, columns] = regression.mean(weights, fidelity)
        return mean

    def _measured_alike(self, trials: TrialTable) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
        """Rows and metrics of each group; constant metrics are put aside."""
        alike: dict[bytes, tuple[np.ndarray, list[str]]] = {}
        for metric in trials.metrics:
            rows, _, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
            else:
                alike.setdefault(rows.tobytes(), (rows, []))[1].append(metric)
        for rows, metrics in alike.values():
            yield rows, tuple(metrics)


def without_noise(std: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Deviations `std` (n, q) of a run, less its `noise` (q,) where that is known.

    Never less than half of what they were: a measured noise is itself uncertain.
    """
    known = np.nan_to_num(noise)
    return np.asarray(np.sqrt(np.maximum(std**2 - known**2, std**2 / 4 * (known > 0))))


def calibration_factor(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """(p,) factor on `deviations` (k, p) that puts nine tenths of held-out `errors` (k, p) inside.

    The quantile of split-conformal prediction, level .9 (k + 1) / k: with few trials the plain
    one covers less than its level.
    """
    level = min(1.0, 0.9 * (len(errors) + 1) / len(errors))
    shares = np.abs(errors) / np.maximum(deviations, np.finfo(float).tiny)
    return np.asarray(np.quantile(shares, level, axis=0) / NORMAL_90)


def student_factor(trials: float) -> float:
    """Factor on a deviation of so few `trials`, so that NORMAL_90 of it hold 90 % (Student)."""
    return float(student.ppf(0.95, trials)) / NORMAL_90


def correlation_of_few(errors: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(q, q) correlation of errors (n, q) of few trials, shrunk to that of low-fidelity ones.

    In the mean of many metrics, only the errors that they have in common are left. Few errors
    estimate these no better than a deviation, so the correlation is raised by Student's factor
    squared.
    """
    worth = min(TIED, errors.shape[1])
    tied = error_correlation(errors, before, worth)
    return _raised(tied, student_factor(max(len(errors) - 1, 0) + worth) ** 2)


def _raised(correlation: np.ndarray, factor: float) -> np.ndarray:
    """`correlation` (p, p), moved towards 1 until its mean is `factor` times as large."""
    pairs = ~np.eye(len(correlation), dtype=bool)
    mean = correlation[pairs].mean() if pairs.any() else 0.0
    if not 0 < mean < 1:
        return correlation
    share = (min(1.0, factor * mean) - mean) / (1 - mean)
    return np.asarray((1 - share) * correlation + share)


def folds_of(weights: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) the fold of each row of `weights` (n, m), at most `folds` of them.

    Equal mixtures share a fold, and a mixture's fold does not depend on the order of the rows.
    Where there is but one mixture, its rows are split.
    """
    _, kind = np.unique(weights, axis=0, return_inverse=True)
    kinds = int(kind.max()) + 1
    if kinds == 1:
        kind, kinds = np.arange(len(weights)), len(weights)
    return np.asarray(
        (np.random.default_rng(seed).permutation(kinds) % min(folds, kinds))[kind.ravel()]
    )


def usual_fidelity(table: TrialTable) -> Fidelity:
    """The fidelity of most finished runs; of equally frequent ones the highest."""
    final = table.final
    return max(reversed(final.fidelities), key=lambda fidelity: int(final.at(fidelity).sum()))
