"""Small pools of finished runs, and surrogates and proposers whose behaviour is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.offline.pool import Pool
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates.base import Prediction, Surrogate, checked
from mixopt.testing.surrogates import example_table, example_values

OBJECTIVE = Objective({"a": 1.0, "b": 2.0, "c": 1.0})
SMALL, LARGE = Fidelity("", 1_000_000, 10_000_000), Fidelity("", 4_000_000, 10_000_000)


class Oracle(Surrogate):
    """Knows the noise-free truth of `example_values` beforehand, and counts its fits."""

    name = "oracle"
    fits = 0

    def fit(self, table: TrialTable) -> Oracle:
        Oracle.fits += 1
        if len(table) < 3:
            raise SurrogateError("too few")
        self.metrics, self.domains = table.metrics, table.domains
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        mean = example_values(checked(mixtures, self.domains))
        return Prediction(self.metrics, mean, np.full_like(mean, 0.1), np.zeros(3))


class ManySizes(Oracle):
    """The same, and learns from every fidelity."""

    multi_fidelity = True


class TargetOnly(Oracle):
    """The same, but cannot be fitted without three trials at the fidelity it was made for."""

    def fit(self, table: TrialTable) -> TargetOnly:
        assert self.fidelity is not None
        if table.at(self.fidelity).sum() < 3:
            raise SurrogateError("too few at the target")
        super().fit(table)
        return self


class Chance(Proposer):
    """Picks blindly; recommends by its surrogate."""

    name = "chance"

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        raise AssertionError("only a pool is searched here")

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        rows = self.rng(trials).permutation(len(pool))[:n]
        return [pool[row] for row in rows]


class Greedy(Chance):
    """Takes whatever its surrogate recommends, the cheapest fidelity or not."""

    name = "greedy"

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        return [self.recommend(trials, pool)]


def one_size(n: int = 12, noise: float = 0.0, seed: int = 3) -> Pool:
    return Pool.of(example_table(n, noise, seed), OBJECTIVE)


def two_sizes(small: int = 20, large: int = 8) -> TrialTable:
    """The `large` first mixtures of `small` also as larger models, .5 better throughout."""
    table = example_table(small, noise=0.0)
    rows = np.concatenate([np.arange(small), np.arange(large)])
    better = np.arange(small + large) >= small
    both = table.select(rows)
    return dataclasses.replace(
        both,
        values=both.values - 0.5 * better[:, None],
        params=np.where(better, LARGE.params, SMALL.params).astype(float),
        runs=np.arange(small + large),
    )


def oracle(pool: Pool, kind: type[Surrogate] = Oracle) -> partial[Surrogate]:
    return partial(kind, fidelity=pool.target)
