"""What is held out, what surrogates are compared on, and what of it a report may show."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make
from mixopt.surrogates.auto import Auto
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold, choose, out_of_fold
from mixopt.testing.surrogates import example_table, two_fidelities

OBJECTIVES = Objective({"a": 1.0, "c": 1.0})


def with_curves(final: TrialTable, points: int) -> TrialTable:
    """Every trial measured `points` times on its way, at losses that fall with the tokens."""
    n, shares = len(final), np.arange(1, points + 1) / points
    rows = np.repeat(np.arange(n), points)
    table = final.select(rows)
    share = np.tile(shares, n)
    return dataclasses.replace(
        table,
        values=table.values + 0.2 * (share[:, None] ** -0.3 - 1),
        tokens=table.tokens * share,
        runs=rows,
    )


def same(one: OutOfFold, other: OutOfFold) -> None:
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-9)
    np.testing.assert_allclose(one.std, other.std, rtol=1e-9)
    np.testing.assert_array_equal(one.observed, other.observed)
    assert one.scores == other.scores


def test_long_curves_leave_no_more_mixtures_out_at_once() -> None:
    final = example_table(24)
    target = final.fidelities[0]
    fresh = partial(make, "linear", fidelity=target, objective=OBJECTIVES)
    plain = out_of_fold(final, OBJECTIVES, fresh, at=target)
    curved = out_of_fold(with_curves(final, 40), OBJECTIVES, fresh, at=target)
    np.testing.assert_allclose(curved.mean, plain.mean, rtol=1e-9)


@pytest.mark.parametrize("n", [24, 60])
def test_the_winner_comes_with_its_predictions_of_every_trial(n: int) -> None:
    table = example_table(n)
    choice = choose(table, OBJECTIVES, names=("linear",))
    assert choice.held_out is not None
    fresh = partial(make, "linear", objective=OBJECTIVES)
    same(choice.held_out, out_of_fold(table, OBJECTIVES, fresh, folds=5 if n <= 32 else 3))
    assert choice.scores["linear"] == choice.held_out.scores[OBJECTIVE]


def test_what_was_compared_on_a_part_of_the_trials_is_not_told_of_all() -> None:
    choice = choose(example_table(180), OBJECTIVES, names=("linear",))
    assert choice.scores["linear"].n == 180 - 128
    assert choice.held_out is None
    assert choice.learned == 128


@pytest.mark.slow
def test_surrogates_of_several_fidelities_are_compared_with_the_curves_they_are_fitted_with() -> (
    None
):
    large = example_table(20)
    small = dataclasses.replace(
        large,
        values=large.values + 0.5,
        params=large.params / 10,
        runs=large.runs + 20,
    )
    # the small models ended early: only their curves lead to the target's tokens
    curves = with_curves(small, 6)
    curves = curves.select(curves.tokens < large.tokens[0])
    table = TrialTable(
        large.domains,
        large.metrics,
        *(
            np.concatenate([getattr(large, name), getattr(curves, name)])
            for name in ("weights", "values", "params", "tokens", "seeds")
        ),
        runs=np.concatenate([large.runs, 20 + curves.runs]),
    )
    target = large.fidelities[0]
    choice = choose(table, OBJECTIVES, names=("nested-laws",), fidelity=target)
    assert choice.held_out is not None
    assert choice.held_out.mean.shape == (20, len(table.metrics))
    fresh = partial(make, "nested-laws", fidelity=target, objective=OBJECTIVES)
    same(choice.held_out, out_of_fold(table, OBJECTIVES, fresh, at=target))


def test_a_target_that_was_not_measured_is_stood_in_for_by_the_dearest_fidelity() -> None:
    large = example_table(12)
    parts = [dataclasses.replace(large, params=large.params / k) for k in (1, 4, 16)]
    ends = TrialTable(
        large.domains,
        large.metrics,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("weights", "values", "params", "tokens", "seeds")
        ),
    )
    table = with_curves(ends, 3)
    beyond = Fidelity("", round(large.params[0] * 4), round(large.tokens[0]))
    choice = choose(table, OBJECTIVES, fidelity=beyond)
    # ends of the largest runs, none of them learned from: not its curves' points, which are dearer
    assert all(score.n == 12 for score in choice.scores.values())
    assert choice.held_out is None


@pytest.mark.parametrize(
    ("times", "asked", "able"), [(10.0, 10**5, "nested-laws"), (1.0, 10**8, "cokriging")]
)
def test_a_size_that_was_not_run_is_chosen_for_among_those_that_can_predict_there(
    times: float, asked: int, able: str
) -> None:
    table = two_fidelities(12, params=times)
    fitted = Auto(fidelity=Fidelity("", asked, 10**7)).fit(table)
    assert fitted.choice is not None
    assert fitted.choice.name == able
    assert np.isfinite(fitted.predict(table.weights[:3]).mean).all()


def test_a_size_that_no_surrogate_can_predict_at_is_refused() -> None:
    smaller = Fidelity("", 10**5, 10**7)
    with pytest.raises(SurrogateError, match="nothing is known of 100000 parameters"):
        choose(two_fidelities(12), OBJECTIVES, names=("cokriging",), fidelity=smaller)


def test_trees_win_where_losses_have_a_threshold_and_runs_are_many() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 160)
    steps = (weights[:, 0] > 0.2) + 2.0 * (weights[:, 1] > 0.3) + (weights[:, 2] > 0.15)
    values = (3.0 - steps + 0.01 * rng.standard_normal(160))[:, None]
    ones = np.ones(160)
    table = TrialTable(
        tuple("abcd"), ("loss",), weights, values, 1e6 * ones, 1e7 * ones, np.zeros(160, dtype=int)
    )
    objective = Objective({"loss": 1.0}, prefix="")
    assert choose(table, objective).name == "lightgbm"
    assert "lightgbm" not in choose(table.select(np.arange(60)), objective).scores
