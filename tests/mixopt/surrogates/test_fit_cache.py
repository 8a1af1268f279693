"""A fit is made once for a surrogate's class, its settings and the table's contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.offline.as_trials import trials_of
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.fidelity.nested_laws import NestedLaws
from mixopt.surrogates.fit_cache import FitCache
from mixopt.surrogates.gp.gp import GaussianProcess
from mixopt.surrogates.regression.linear import Linear
from mixopt.testing.surrogates import example_table
from tests.mixopt.offline.pools import ManySizes, Oracle

FIDELITY = Fidelity("", 10**6, 10**7)


def test_a_fit_from_the_cache_predicts_what_a_fresh_one_does() -> None:
    cache = FitCache()
    one, two = example_table(10), example_table(12, seed=1)
    test = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    for table in (one, one, two, one):
        plain = GaussianProcess().fit(table).predict(test)
        kept = cache.learn(GaussianProcess(), table).predict(test)
        assert (plain.mean == kept.mean).all()
        assert (plain.std == kept.std).all()


def test_a_table_made_of_trials_again_needs_no_second_fit() -> None:
    cache, table = FitCache(), example_table(6)
    Oracle.fits = 0
    cache.learn(Oracle(), table)
    cache.learn(Oracle(), TrialTable.of(trials_of(table), table.metrics))
    assert Oracle.fits == 1
    cache.learn(Oracle(), table.select(np.arange(5)))
    cache.learn(Oracle(), table)  # only the last table's fits are kept
    assert Oracle.fits == 3


@pytest.mark.parametrize(
    "other",
    [
        partial(Oracle, seed=1),
        partial(Oracle, fidelity=FIDELITY),
        partial(Oracle, noise={"bpb/a": 0.1}),
        partial(Oracle, objective=Objective({"a": 1.0})),
        ManySizes,
    ],
)
def test_another_class_or_setting_is_fitted_anew(other: Callable[[], Surrogate]) -> None:
    cache, table = FitCache(), example_table(6)
    first = cache.learn(Oracle(), table)
    second = cache.learn(other(), table)
    assert second is not first
    assert type(second) is type(other())
    assert cache.learn(other(), table) is second
    assert cache.learn(Oracle(), table) is first


def test_a_setting_of_its_own_is_part_of_the_key() -> None:
    cache, table = FitCache(), example_table(12)
    law = cache.learn(NestedLaws(), table)
    assert cache.learn(NestedLaws(base="gp"), table) is not law
    assert cache.learn(NestedLaws(), table) is law


def test_what_was_fitted_to_another_table_is_no_fresh_surrogate() -> None:
    cache, table = FitCache(), example_table(12)
    fitted = Linear().fit(example_table(12, seed=1))
    first = cache.learn(Linear(), table)
    again = cache.learn(fitted, table)
    assert again is not first
    assert (again.mean(table.weights) == first.mean(table.weights)).all()


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrialTable)])
def test_tables_that_differ_in_anything_are_fitted_anew(name: str) -> None:
    table = example_table(6)
    other = getattr(table, name)
    other = other[::-1] if isinstance(other, tuple) else other.copy()
    if name == "runs":
        other[5] = other[0]  # two rows of one run, in place of two runs
    elif isinstance(other, np.ndarray):
        other[0] += 1
    assert dataclasses.replace(table, **{name: other}).contents != table.contents
    assert dataclasses.replace(table, runs=table.runs + 7).contents == table.contents
