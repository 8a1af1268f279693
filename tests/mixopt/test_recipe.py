"""Evaluations keep within their share of a training, by cutting tokens alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.errors import StudyError
from mixopt.recipe import Recipe


def forward_tokens(recipe: Recipe, sets: int) -> int:
    return sets * (recipe.evaluation_tokens + (recipe.evaluations - 1) * recipe.curve_tokens)


@given(st.integers(1, 10**9), st.integers(1, 200), st.integers(1, 20), st.floats(0.001, 2))
def test_evaluations_cost_at_most_their_share(tokens, sets, evaluations, share):
    recipe = Recipe(evaluations=evaluations, evaluation_share=share)
    kept = recipe.affordable(tokens, sets)
    assert forward_tokens(kept, sets) <= share * 3 * tokens
    assert kept.evaluation_tokens <= recipe.evaluation_tokens
    assert kept.curve_tokens <= recipe.curve_tokens
    assert kept.evaluations == recipe.evaluations


def test_tokens_that_are_affordable_are_all_read():
    recipe = Recipe()
    assert recipe.affordable(10**9, 7) == recipe


def test_the_end_and_the_way_are_cut_by_the_same_factor():
    kept = Recipe(evaluation_tokens=40_000, curve_tokens=10_000).affordable(600_000, 7)
    assert kept.evaluation_tokens == pytest.approx(4 * kept.curve_tokens, abs=4)
    assert forward_tokens(kept, 7) == pytest.approx(0.08 * 3 * 600_000, rel=1e-3)


def test_without_a_share_nothing_is_cut():
    recipe = Recipe(evaluation_share=None)
    assert recipe.affordable(1, 100) == recipe


def test_a_share_of_nothing_is_refused():
    with pytest.raises(StudyError, match="evaluation_share: must be above 0 or null"):
        Recipe(evaluation_share=0)
