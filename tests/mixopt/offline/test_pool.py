"""Finished runs as a pool: what may be looked at, and what it costs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from mixopt.core.errors import RunsError
from mixopt.offline.pool import Pool
from mixopt.testing.surrogates import example_table
from tests.mixopt.offline.pools import LARGE, OBJECTIVE, SMALL, one_size, two_sizes


def test_at_one_fidelity_a_run_costs_one() -> None:
    pool = one_size()
    assert pool.costs.tolist() == [1.0] * 12
    assert pool.target == SMALL


def test_the_target_is_the_most_expensive_fidelity_and_its_run_the_unit_of_cost() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)
    assert pool.target == LARGE
    assert pool.costs.tolist() == [0.25] * 20 + [1.0] * 8
    assert pool.targets.tolist() == list(range(20, 28))
    assert Pool.of(two_sizes(), OBJECTIVE, target=SMALL).costs.tolist() == [1.0] * 20 + [4.0] * 8


def test_the_best_of_the_pool_is_the_least_objective_at_the_target() -> None:
    table = two_sizes()
    pool = Pool.of(table, OBJECTIVE)
    naive = table.values[20:] @ np.array([0.25, 0.5, 0.25])
    assert pool.best == 20 + int(np.argmin(naive))
    assert pool.regret(pool.best) == 0
    assert pool.regret(21) == pytest.approx(naive[1] - naive.min())
    assert math.isnan(pool.regret(None))


def test_repeats_are_averaged_at_the_cost_of_all_of_them() -> None:
    table = example_table(5)
    twice = table.select(np.array([0, 1, 2, 3, 4, 1]))
    twice.values[5] += 0.3
    twice = dataclasses.replace(twice, runs=np.arange(6))
    pool = Pool.of(twice, OBJECTIVE, costs=np.array([1, 2, 3, 4, 5, 7.0]))
    assert pool.costs.tolist() == [1, 9, 3, 4, 5]
    assert pool.values[1] == pytest.approx(OBJECTIVE.of_table(table)[1] + 0.15)
    assert pool.notes == ("1 runs repeat a mixture: averaged, their costs added",)


def test_of_a_curve_only_the_last_row_counts() -> None:
    table = example_table(4)
    rows = np.repeat(np.arange(4), 2)
    curves = dataclasses.replace(
        table.select(rows), runs=rows, tokens=np.tile([2e6, 1e7], 4).astype(float)
    )
    curves.values[::2] += 1.0
    pool = Pool.of(curves, OBJECTIVE)
    assert len(pool.specs) == 4
    assert pool.values == pytest.approx(OBJECTIVE.of_table(table))


def test_a_target_run_without_the_objective_is_left_out_and_said_so() -> None:
    table = example_table(6)
    table.values[2, 1] = np.nan
    pool = Pool.of(table, OBJECTIVE)
    assert len(pool.specs) == 5
    assert "1 runs at the target lack a metric" in pool.notes[0]


def test_a_cheap_run_without_the_objective_still_tells_what_it_measured() -> None:
    table = two_sizes()
    table.values[0, 1] = np.nan
    pool = Pool.of(table, OBJECTIVE)
    assert len(pool.specs) == 28
    assert sorted(pool.trial(0, 0).metrics) == ["bpb/a", "bpb/c"]
    assert np.isnan(pool.values[0])


@pytest.mark.parametrize("cost", [-1.0, math.nan])
def test_a_cost_that_is_none_is_refused_by_name(cost: float) -> None:
    costs = np.array([1.0, 1.0, cost, 1.0])
    with pytest.raises(RunsError, match="run r2"):
        Pool.of(example_table(4), OBJECTIVE, costs=costs, names=["r0", "r1", "r2", "r3"])


def test_one_mixture_at_the_target_is_no_pool() -> None:
    with pytest.raises(RunsError, match="1 mixtures were run at 4M parameters"):
        Pool.of(two_sizes(large=1), OBJECTIVE)
