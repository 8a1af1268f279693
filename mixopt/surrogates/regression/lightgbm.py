"""Gradient-boosted trees per metric, as RegMix uses them (2407.01492).

Shapes: n trials or mixtures, m domains; a group of p metrics measured on k trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import lightgbm
import numpy as np

from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.per_metric import PerMetric, calibration_factor, folds_of

ROUNDS = 300  # the most trees that are grown
LEARNING_RATE = 0.05  # RegMix: .01 and 1000 trees, to the same errors in thrice the time
SKETCH_ROUNDS, SKETCH_RATE = 60, 0.2  # coarser forests, by which the leaf size is chosen
STRIDE = 15  # trees between two looks at the held-out error
FOLDS = 5
LEAVES = (12, 6, 3)  # leaf sizes tried besides 2: these parts of the trials
LARGEST_LEAF = 20  # RegMix's, and LightGBM's default


@dataclass(frozen=True)
class _Forest:
    """One metric: the booster of all trials, and those that each missed a fold."""

    whole: lightgbm.Booster
    folds: tuple[lightgbm.Booster, ...]
    rounds: int  # how many of their trees count
    spread: float  # the deviation of held-out errors that is the same everywhere

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n,) at `weights` (n, m)."""
        return _values(self.whole, weights, self.rounds)

    def std(self, weights: np.ndarray) -> np.ndarray:
        """(n,) at `weights` (n, m)."""
        apart = np.std([_values(booster, weights, self.rounds) for booster in self.folds], axis=0)
        return np.asarray(np.hypot(apart, self.spread))


@dataclass(frozen=True)
class _Forests:
    """One group: a forest per metric."""

    forests: tuple[_Forest, ...]
    errors: np.ndarray

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        return np.stack([forest.mean(weights) for forest in self.forests], axis=1)

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        return np.stack([forest.std(weights) for forest in self.forests], axis=1)


class LightGBM(PerMetric):
    """LightGBM as RegMix uses it, but with leaves as small as the table asks for.

    RegMix's 20 trials per leaf make a constant of every model of fewer than 40. Here coarse forests
    with leaves of 2, n / 12, n / 6 and n / 3 of n trials, at most 20, are compared on held-out
    folds, all metrics together, and the best size is used. The number of trees is where the mean
    error on the same folds is least, per metric; no other data is looked at.

    The deviation is one that holds nine tenths of the held-out errors, larger where the boosters of
    the folds disagree: it holds the noise of a run, which trees cannot tell apart, so
    that `Prediction.noise` is NaN unless it was given.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "lightgbm"

    def _learn(self, trials: TrialTable) -> _Forests:
        # trees break ties by the order of rows, which should not matter
        order = np.lexsort((*trials.values.T, *trials.weights.T))
        weights, values = trials.weights[order], trials.values[order]
        fold = folds_of(weights, FOLDS, self.seed)
        leaf = self._best_leaf(weights, values, fold)
        errors, forests = np.empty_like(values), []
        for j, column in enumerate(values.T):
            forest, errors[order, j] = self._grow(weights, column, fold, leaf)
            forests.append(forest)
        return _Forests(tuple(forests), errors)

    def _best_leaf(self, weights: np.ndarray, values: np.ndarray, fold: np.ndarray) -> int:
        """The leaf size with the least held-out error, in units of each metric's variance."""
        n = len(weights)
        sizes = sorted({max(2, min(LARGEST_LEAF, n // part)) for part in LEAVES} | {2})
        losses = []
        for size in sizes:
            loss = 0.0
            for column in values.T:
                boosters = self._boosters(weights, column, fold, size, SKETCH_ROUNDS, SKETCH_RATE)
                loss += _curve(boosters, weights, column, fold).min() / column.var()
            losses.append(loss)
        return sizes[int(np.argmin(losses))]

    def _grow(
        self, weights: np.ndarray, values: np.ndarray, fold: np.ndarray, leaf: int
    ) -> tuple[_Forest, np.ndarray]:
        boosters = self._boosters(weights, values, fold, leaf, ROUNDS, LEARNING_RATE)
        rounds = STRIDE * (1 + int(np.argmin(_curve(boosters, weights, values, fold))))
        apart = np.stack([_values(booster, weights, rounds) for booster in boosters])
        errors = values - apart[fold, np.arange(len(values))]
        # At a trial the one booster that has not seen it stands apart by its error: scaling by
        # that disagreement predicts errors that it was made from, and at 256 runs .84 of others
        # lay in the 90 % interval. So only its mean is taken out of what the errors show.
        whole_spread = float(calibration_factor(errors[:, None], np.ones((len(values), 1)))[0])
        rest = whole_spread**2 - float(apart.var(axis=0).mean())
        spread = np.sqrt(max(rest, whole_spread**2 / 4))
        whole = self._train(weights, values, leaf, rounds, LEARNING_RATE)
        return _Forest(whole, tuple(boosters), rounds, float(spread)), errors

    def _boosters(
        self,
        weights: np.ndarray,
        values: np.ndarray,
        fold: np.ndarray,
        leaf: int,
        rounds: int,
        rate: float,
    ) -> list[lightgbm.Booster]:
        """One without each fold."""
        return [
            self._train(weights[fold != number], values[fold != number], leaf, rounds, rate)
            for number in range(int(fold.max()) + 1)
        ]

    def _train(
        self, weights: np.ndarray, values: np.ndarray, leaf: int, rounds: int, rate: float
    ) -> lightgbm.Booster:
        settings = {
            "objective": "l2",
            "metric": "none",
            "learning_rate": rate,
            "min_child_samples": max(1, min(leaf, len(values) // 2)),
            "min_data_in_bin": 1,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": 1,
            "verbose": -1,
        }
        # `lightgbm.train` writes every booster to text and reads it again: a third of the time
        booster = lightgbm.Booster(settings, lightgbm.Dataset(weights, values, params=settings))
        for _ in range(rounds):
            if booster.update():  # nothing is left to split
                break
        return booster.free_dataset()


def _curve(
    boosters: list[lightgbm.Booster], weights: np.ndarray, values: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Mean squared held-out error after each `STRIDE` trees."""
    longest = max(booster.current_iteration() for booster in boosters)
    looks = max(1, -(-longest // STRIDE))
    predicted = np.zeros((looks, len(values)))
    for number, booster in enumerate(boosters):
        out = fold == number
        for look in range(looks):
            first = look * STRIDE
            if first < booster.current_iteration() or look == 0:
                predicted[look, out] = booster.predict(
                    weights[out], start_iteration=first, num_iteration=STRIDE
                )
    return np.asarray(((predicted.cumsum(axis=0) - values) ** 2).mean(axis=1))


def _values(booster: lightgbm.Booster, weights: np.ndarray, rounds: int) -> np.ndarray:
    return np.asarray(booster.predict(weights, num_iteration=rounds), dtype=float)
