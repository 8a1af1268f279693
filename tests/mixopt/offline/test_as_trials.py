"""Finished runs as trials, for proposers that work without a ledger."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import State
from mixopt.offline.as_trials import pending_trials, trials_of
from mixopt.search.proposers.regmix import RegMix
from mixopt.surrogates import make as make_surrogate
from mixopt.testing.surrogates import example_table
from tests.mixopt.offline.pools import LARGE, OBJECTIVE, SMALL, one_size, two_sizes


def test_trials_of_a_table_make_that_table_again() -> None:
    table = two_sizes()
    table.values[3, 1] = np.nan
    trials = trials_of(table, costs=np.arange(28.0))
    again = TrialTable.of(trials, table.metrics)
    for name in ("weights", "params", "tokens", "seeds", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert [trial.number for trial in trials] == list(range(28))
    assert all(trial.complete for trial in trials)
    assert [trial.result.cost.device_seconds for trial in trials if trial.result] == list(range(28))


def test_rows_of_one_run_become_one_trial_with_its_curve() -> None:
    table = example_table(2)
    rows = np.array([1, 0, 1])
    steps = np.array([9e6, 1e7, 3e6])
    table = dataclasses.replace(table.select(rows), runs=rows, tokens=steps)
    late, other = trials_of(table)
    assert late.spec.fidelity.tokens == 9_000_000
    assert late.result is not None
    assert [point.tokens for point in late.result.curve] == [3_000_000, 9_000_000]
    assert late.result.curve[-1].metrics == late.metrics
    assert other.spec.fidelity.tokens == 10_000_000


def test_pending_trials_are_taken_but_not_learned_from() -> None:
    weights = np.array([[0.25, 0.75], [0.5, 0.5]])
    trials = pending_trials(("a", "b"), weights, [SMALL, LARGE], first=7)
    assert [(t.number, t.state, t.spec.fidelity) for t in trials] == [
        (7, State.RUNNING, SMALL),
        (8, State.RUNNING, LARGE),
    ]
    assert not any(trial.complete for trial in trials)
    taken = RegMix(one_size().space, OBJECTIVE, SMALL, partial(make_surrogate, "gp"))
    assert len(taken.untried(trials, [t.spec for t in trials])) == 0
