"""A stack leans on the members that predict held-out trials."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import optimize

from mixopt.core.errors import SurrogateError
from mixopt.surrogates import make
from mixopt.surrogates.regression.stack import Stack, shares
from mixopt.testing.surrogates import SurrogateConformance, example_table


class TestStack(SurrogateConformance):
    """Of three cheap members; the default ones are fitted once below."""

    surrogate = Stack

    def make(self, **settings: object) -> Stack:
        return Stack(members=("linear", "quadratic", "bimix"), **settings)  # type: ignore[arg-type]


def test_shares_are_the_best_on_the_simplex() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    noise = rng.normal(size=(200, 3)) * [0.3, 0.5, 2.0]
    result = truth[:, None] + noise
    found = shares(result, truth)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    best = optimize.minimize(
        lambda w: ((result @ w - truth) ** 2).sum(),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    np.testing.assert_allclose(found, best.x, atol=0.02)


def test_a_member_that_is_right_gets_everything_and_a_useless_one_next_to_nothing() -> None:
    observed = np.random.default_rng(1).normal(size=50)
    result = np.stack([observed, np.zeros(50)], axis=1)
    np.testing.assert_allclose(shares(result, observed), [1, 0])
    noisy = observed + 0.1 * np.random.default_rng(2).normal(size=50)
    assert shares(np.stack([noisy, np.zeros(50)], axis=1), observed)[0] > 0.95


def test_each_metric_leans_on_the_form_that_it_follows() -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(4), 60)
    values = np.stack(
        [
            2 - np.sqrt(weights) @ [1.0, 0.4, 0.2, 0.1],
            1 + weights[:, 0] * weights[:, 1] * 4 + weights[:, 2] ** 2,
            (weights[:, 2] + 1e-3) ** -0.2,
        ],
        axis=1,
    )
    table = dataclasses.replace(example_table(60), weights=weights, values=values)
    fitted = Stack(members=("linear", "quadratic", "bimix")).fit(table)
    assert fitted.shares.argmax(axis=0).tolist() == [0, 1, 2]
    assert (fitted.shares.max(axis=0) > 0.9).all()


@pytest.mark.slow
def test_the_default_members_together_beat_all_of_them_but_the_form_that_made_the_trials() -> None:
    table, test = example_table(32, noise=0.02), example_table(200, noise=0.0, seed=1)

    def error(surrogate) -> float:
        return float(np.abs(surrogate.fit(table).mean(test.weights) - test.values).mean())

    stack = Stack()
    alone = [error(make(name)) for name in stack.members]
    assert stack.members[int(np.argmin(alone))] == "effective-data"
    assert error(stack) < 0.8 * sorted(alone)[1]


def test_where_trials_are_too_few_to_hold_some_out_all_members_count_alike() -> None:
    fitted = Stack(members=("linear", "quadratic")).fit(example_table(3))
    np.testing.assert_array_equal(fitted.shares, 0.5)
    assert np.isfinite(fitted.predict(np.eye(4)).std).all()


def test_a_stack_of_nothing_is_refused() -> None:
    with pytest.raises(SurrogateError, match="needs members"):
        Stack(members=())
