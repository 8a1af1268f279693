"""Gradient-boosted trees per metric, as RegMix uses them (2407.01492).

Shapes: n trials or mixtures, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np

from mixopt.objective import Objective
from mixopt.surrogates.base import (
    Prediction,
    Surrogate,
    at_one_fidelity,
    checked,
    error_correlation,
    measured,
)
from mixopt.trials import Fidelity, TrialTable

ROUNDS = 1000  # RegMix's number of trees, here the most that are grown
LEARNING_RATE = 0.01  # RegMix
FOLDS = 5
NORMAL_90 = 1.6449  # |z| that 90 % of a standard normal stay below


@dataclass(frozen=True)
class _Forest:
    """One metric: the booster of all trials, and those that each missed a fold."""

    whole: lightgbm.Booster
    folds: tuple[lightgbm.Booster, ...]
    spread: float  # root mean square deviation among the fold boosters at the trials
    widen: float  # what turns that deviation into the one observed on held-out trials
    errors: np.ndarray  # (n,) held-out errors, NaN where not measured

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n,) at `weights` (n, m)."""
        apart = np.std([_values(booster, weights) for booster in self.folds], axis=0)
        # half of it the same everywhere: five boosters can agree by chance
        return (
            _values(self.whole, weights),
            self.widen * np.sqrt(apart**2 + self.spread**2),
        )


def _values(booster: lightgbm.Booster, weights: np.ndarray) -> np.ndarray:
    return np.asarray(booster.predict(weights), dtype=float)


class LightGBM(Surrogate):
    """LightGBM with RegMix's settings, but leaves that shrink with the table.

    RegMix's 20 trials per leaf make a constant of every model of fewer than 40; here a leaf holds
    at least n / 6 of n trials, 2 to 20. That share was picked by Spearman on the RegMix 60M pool
    for one subset of 64 and 128 runs; on three other subsets of 64 it scored .898 to .934.

    The number of trees is where the mean error on held-out folds is least, never on test data. The
    deviation comes from the boosters of the folds, scaled so that nine tenths of the held-out
    errors lie where they should: it holds the noise of a run, which trees cannot tell apart, so
    that `Prediction.noise` is NaN unless it was given.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "lightgbm"

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(seed, fidelity, noise, objective)
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._forests: dict[str, _Forest] = {}
        self._constant: dict[str, float] = {}
        self._correlation = np.eye(0)

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; 13 metrics of 64 trials take about six seconds on one core."""
        trials = at_one_fidelity(table, self.fidelity)
        self._forests, self._constant = {}, {}
        errors = np.zeros((len(trials), len(trials.metrics)))
        for j, metric in enumerate(trials.metrics):
            rows, weights, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
                continue
            forest = self._grow(weights, values)
            self._forests[metric] = forest
            errors[:, j] = np.nan
            errors[rows, j] = forest.errors
        self._domains, self._metrics = trials.domains, trials.metrics
        self._correlation = error_correlation(errors)
        return self

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`; a sixth of the work of `predict`."""
        weights = checked(mixtures, self._domains)
        columns = [
            np.full(len(weights), self._constant[metric])
            if metric in self._constant
            else _values(self._forests[metric].whole, weights)
            for metric in self._metrics
        ]
        return np.stack(columns, axis=1)

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        weights = checked(mixtures, self._domains)
        mean = np.empty((len(weights), len(self._metrics)))
        std = np.zeros_like(mean)
        for j, metric in enumerate(self._metrics):
            if metric in self._constant:
                mean[:, j] = self._constant[metric]
            else:
                mean[:, j], std[:, j] = self._forests[metric].predict(weights)
        noise = np.array([self.noise.get(metric, np.nan) for metric in self._metrics])
        for j, metric in enumerate(self._metrics):
            # a measured noise is taken out again, but never more than leaves half the deviation
            if metric in self.noise:
                std[:, j] = np.sqrt(np.maximum(std[:, j] ** 2 - noise[j] ** 2, std[:, j] ** 2 / 4))
        return Prediction(self._metrics, mean, std, noise, self._correlation)

    def _grow(self, weights: np.ndarray, values: np.ndarray) -> _Forest:
        n = len(values)
        folds = np.random.default_rng(self.seed).permutation(n) % min(FOLDS, n)
        boosters, curves = [], []
        for fold in range(min(FOLDS, n)):
            out = folds == fold
            curve: dict[str, Any] = {}
            boosters.append(
                self._train(
                    weights[~out], values[~out], n, ROUNDS, (weights[out], values[out], curve)
                )
            )
            curves.append(np.array(curve["out"]["l2"]) * out.sum())
        rounds = int(np.argmin(np.sum(curves, axis=0))) + 1
        errors, apart = np.empty(n), np.empty((len(boosters), n))
        for fold, booster in enumerate(boosters):
            booster.best_iteration = rounds  # what predict uses from here on
            apart[fold] = _values(booster, weights)
            errors[folds == fold] = apart[fold, folds == fold] - values[folds == fold]
        local = apart.std(axis=0)
        spread = max(float(np.sqrt(np.mean(local**2))), 1e-3 * float(values.std()))
        widen = np.quantile(np.abs(errors) / np.sqrt(local**2 + spread**2), 0.9) / NORMAL_90
        whole = self._train(weights, values, n, rounds)
        return _Forest(whole, tuple(boosters), spread, float(widen), errors)

    def _train(
        self,
        weights: np.ndarray,
        values: np.ndarray,
        n: int,
        rounds: int,
        watch: tuple[np.ndarray, np.ndarray, dict[str, Any]] | None = None,
    ) -> lightgbm.Booster:
        """A booster; `watch` = (weights, values, curve) records its held-out error per round."""
        settings = {
            "objective": "l2",
            "metric": "l2" if watch else "none",
            "learning_rate": LEARNING_RATE,
            "min_child_samples": max(1, min(20, n // 6, len(values) // 2)),
            "min_data_in_bin": 1,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": 1,
            "verbose": -1,
        }
        data = lightgbm.Dataset(weights, values, params=settings, free_raw_data=False)
        if watch is None:
            return lightgbm.train(settings, data, rounds)
        held = lightgbm.Dataset(watch[0], watch[1], reference=data, params=settings)
        return lightgbm.train(
            settings,
            data,
            rounds,
            valid_sets=[held],
            valid_names=["out"],
            callbacks=[lightgbm.record_evaluation(watch[2])],
        )
