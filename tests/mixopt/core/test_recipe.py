"""Evaluations keep within their share of a training; what is weighed has most of it."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.core.errors import StudyError
from mixopt.core.recipe import Recipe

NAMES = [f"d{i}" for i in range(200)]


def forward_tokens(recipe: Recipe, sets: int, weighed: int) -> int:
    """Tokens that all evaluations of a run read, one set after the other."""
    end = sum(recipe.final_tokens(name, NAMES[:weighed]) for name in NAMES[:sets])
    way = recipe.evaluations if recipe.evaluations > 1 else 0  # the end is read with it once more
    return end + sets * way * recipe.curve_tokens


@given(
    tokens=st.integers(1, 10**9),
    sets=st.integers(1, 200),
    weighed=st.integers(0, 200),
    evaluations=st.integers(1, 20),
    share=st.floats(0.001, 2),
)
def test_evaluations_cost_at_most_their_share(tokens, sets, weighed, evaluations, share):
    weighed = min(weighed, sets)
    recipe = Recipe(evaluations=evaluations, evaluation_share=share)
    kept = recipe.affordable(tokens, sets, weighed)
    assert forward_tokens(kept, sets, weighed) <= share * 3 * tokens
    assert kept.evaluation_tokens <= recipe.evaluation_tokens
    assert kept.curve_tokens <= min(recipe.curve_tokens, kept.evaluation_tokens)
    assert kept.evaluations == recipe.evaluations


def test_tokens_that_are_affordable_are_all_read():
    recipe = Recipe()
    assert recipe.affordable(10**9, 7) == recipe
    assert recipe.final_tokens("d1", []) == recipe.evaluation_tokens


def test_what_may_be_spent_is_spent_mostly_at_the_end_and_on_what_is_weighed():
    kept = Recipe().affordable(600_000, 7, 1)
    budget = 0.06 * 3 * 600_000
    assert forward_tokens(kept, 7, 1) == pytest.approx(budget, rel=1e-2)
    end = sum(kept.final_tokens(name, ["d0"]) for name in NAMES[:7])
    assert end == pytest.approx(0.75 * budget, rel=1e-2)
    assert kept.final_tokens("d0", ["d0"]) == pytest.approx(4 * kept.final_tokens("d1", ["d0"]), 4)


def test_without_a_share_nothing_is_cut():
    recipe = Recipe(evaluation_share=None)
    assert recipe.affordable(1, 100, 1) == recipe
    assert recipe.final_tokens("d1", ["d0"]) == recipe.evaluation_tokens


def test_a_share_of_nothing_is_refused():
    with pytest.raises(StudyError, match="evaluation_share: must be above 0 or null"):
        Recipe(evaluation_share=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gradient_clip", -1.0),
        ("gradient_clip", math.nan),
        ("beta1", -0.1),
        ("beta2", 1.5),
        ("beta2", 1.0),
        ("warmup", -0.2),
        ("decay", 1.2),
        ("final_rate", 2.0),
        ("weight_decay", -0.1),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("evaluation_tokens", -1),
        ("curve_tokens", -1),
        ("evaluation_share", math.nan),
        ("checkpoint_seconds", -1.0),
        ("evaluations", 0),
        ("optimizer", "sgd"),
        ("precision", "fp8"),
        ("compile", "perhaps"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object):
    with pytest.raises(StudyError, match=f"^{name}: must be"):
        Recipe(**{name: value})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_every_field_refuses_something(name: str):
    numeric = not isinstance(getattr(Recipe(), name), str)
    with pytest.raises(StudyError, match=f"^{name}: "):
        Recipe(**{name: -1 if numeric else "other"})
