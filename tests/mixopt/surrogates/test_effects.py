"""Effects are what a surrogate says of five points more of a domain, and how sure it is of that."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.effects import effects

DOMAINS = ("web", "code", "books")
SLOPES = np.array([[1.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])  # of the two metrics, per unit of weight


@pytest.fixture(scope="module", params=["gp", "linear"])
def surrogate(request: pytest.FixtureRequest) -> Surrogate:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    values = np.column_stack([weights @ SLOPES, np.full(30, 7.0)])
    ones, runs = np.ones(30), np.zeros(30, dtype=int)
    table = TrialTable(DOMAINS, ("a", "b", "same"), weights, values, ones, ones, runs)
    return make(request.param, seed=0).fit(table)


NATURAL = Mixture.of({"web": 0.5, "code": 0.3, "books": 0.2})
OBJECTIVE = Objective({"a": 1, "b": -1}, prefix="")
at_natural = partial(effects, objective=OBJECTIVE, metrics=("a", "b", "same"), at=NATURAL)


def test_the_others_give_way_in_proportion(surrogate: Surrogate) -> None:
    found = at_natural(surrogate)
    assert found.metrics == ("a", "b", "same", "objective")
    assert found.raised == pytest.approx([0.55, 0.35, 0.25])
    base = NATURAL.array
    for j in range(3):
        moved = base * (1 - base[j] - 0.05) / (1 - base[j])
        moved[j] = base[j] + 0.05
        before, after = surrogate.predict(np.stack([base, moved])).mean
        assert found.change[j, :3] == pytest.approx(after - before, abs=1e-6)
        if surrogate.name == "gp":  # on noise-free data it knows the truth
            assert found.change[j, :2] == pytest.approx((moved - base) @ SLOPES, abs=0.01)


def test_the_objective_changes_by_the_weighted_changes(surrogate: Surrogate) -> None:
    found = at_natural(surrogate)
    assert found.change[:, 3] == pytest.approx((found.change[:, 0] - found.change[:, 1]) / 2)


def test_a_constant_metric_has_no_effects(surrogate: Surrogate) -> None:
    found = at_natural(surrogate)
    assert not found.change[:, 2].any()
    assert not found.std[:, 2].any()


def test_a_small_change_is_known_better_than_the_levels_it_lies_between() -> None:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(3), 8)
    values = (weights @ SLOPES)[:, :1] + 0.05 * rng.standard_normal((8, 1))
    ones = np.ones(8)
    table = TrialTable(DOMAINS, ("a",), weights, values, ones, ones, np.zeros(8, dtype=int))
    surrogate = make("gp", seed=0).fit(table)
    found = effects(surrogate, Objective({"a": 1}, prefix=""), ("a",), NATURAL)
    level = surrogate.predict(NATURAL.array[None]).std[0, 0]
    assert (found.std[:, 0] < level).all()
    assert (found.std[:, 0] > 0).all()


def test_a_domain_that_has_all_the_weight_cannot_be_raised(surrogate: Surrogate) -> None:
    alone = Mixture.of({"web": 1.0, "code": 0.0, "books": 0.0})
    found = effects(surrogate, OBJECTIVE, ("a", "b", "same"), alone)
    assert found.raised[0] == 1
    assert found.change[0] == pytest.approx(0, abs=1e-9)
