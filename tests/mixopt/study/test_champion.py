"""`champion` moves only to a model that is better than the noise, or by a person's word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.formatting import signed
from mixopt.study.champion import (
    ChampionDecision,
    Standing,
    approved,
    decided_by_difference,
    decided_without_comparison,
    keep_decision,
    not_comparable,
    read_decision,
    waiting,
)

STANDING = Standing(version="3", promotion="old", study="before", tokenizer="abc")


def measured(mean: float, error: float) -> dict[str, Any]:
    return {
        "mean": mean,
        "standard_error": error,
        "first": 2.0 + mean,
        "second": 2.0,
        "windows": 64,
    }


@pytest.mark.parametrize(
    ("mean", "error", "alias"),
    [
        (-0.020, 0.010, "champion"),
        (-0.016, 0.010, "challenger"),  # within 1.645 standard errors
        (0.020, 0.010, "challenger"),
        (0.0, 0.0, "challenger"),  # the same model
        (-0.020, float("nan"), "challenger"),  # one window: nobody knows the noise
    ],
)
def test_only_a_difference_beyond_the_noise_moves_the_alias(
    mean: float, error: float, alias: str
) -> None:
    decision = decided_by_difference("new", STANDING, measured(mean, error))
    assert decision.alias == alias
    assert decision.difference == mean
    assert f"a difference of {signed(mean)}, " in decision.reason
    assert "version 3 of before" in decision.reason
    assert "1.645 standard errors over 64 windows" in decision.reason


def test_a_model_that_was_not_trained_is_no_champion_without_a_comparison() -> None:
    decision = decided_without_comparison("new", True, None, "abc", trained=False)
    assert decision is not None
    assert decision.alias == "challenger"
    assert "not trained" in decision.reason
    assert decided_without_comparison("new", True, STANDING, "abc", trained=False) is None


def test_the_first_model_is_champion() -> None:
    decision = decided_without_comparison("new", True, None, "abc")
    assert decision is not None
    assert decision.alias == "champion"


@pytest.mark.parametrize("standing", [None, STANDING])
def test_a_promoted_baseline_is_a_challenger(standing: Standing | None) -> None:
    decision = decided_without_comparison("new", False, standing, "abc")
    assert decision is not None
    assert (decision.alias, "the gate did not pass" in decision.reason) == ("challenger", True)


@pytest.mark.parametrize("tokenizer", ["other", ""])
def test_another_tokenizer_cannot_be_compared(tokenizer: str) -> None:
    other = dataclasses.replace(STANDING, tokenizer=tokenizer)
    decision = decided_without_comparison("new", True, other, "abc")
    assert decision is not None
    assert decision.alias == "challenger"
    assert "cannot be evaluated on this text: it has another tokenizer" in decision.reason


def test_models_of_one_tokenizer_have_to_be_compared() -> None:
    assert decided_without_comparison("new", True, STANDING, "abc") is None


def test_a_champion_that_stands_stays() -> None:
    own = dataclasses.replace(STANDING, promotion="new")
    for improved in (True, False):
        decision = decided_without_comparison("new", improved, own, "abc")
        assert decision is not None
        assert decision.alias == "champion"


def test_a_person_is_told_what_mixopt_would_do() -> None:
    decision = waiting(decided_by_difference("new", STANDING, measured(-0.1, 0.01)))
    assert decision.alias == "challenger"
    assert "waits for `mixopt approve` (mixopt would make it champion: on this" in decision.reason
    assert decision.difference == -0.1


def test_an_approval_keeps_reason_and_what_was_measured() -> None:
    before = decided_by_difference("new", STANDING, measured(-0.01, 0.01))
    for standing in (STANDING, None):  # None: the registry was not at hand
        decision = approved("new", "the team's evaluation", before, standing)
        assert (decision.alias, decision.by, decision.why) == (
            "champion",
            "person",
            "the team's evaluation",
        )
        assert (decision.difference, decision.against_promotion) == (-0.01, "old")


def test_a_decision_is_read_back_for_its_promotion_alone(tmp_path: Path) -> None:
    decision = not_comparable("new", STANDING, "its files are gone")
    keep_decision(tmp_path, decision)
    assert read_decision(tmp_path, "new") == decision
    assert read_decision(tmp_path, "another") is None
    (tmp_path / "promotion" / "champion.json").write_text("{")
    assert read_decision(tmp_path, "new") is None


def test_a_champion_of_before_does_not_come_back_over_another() -> None:
    decision = decided_by_difference("new", STANDING, measured(-0.1, 0.01))
    later = dataclasses.replace(STANDING, version="9", promotion="later")
    own = dataclasses.replace(STANDING, promotion="new")
    assert decision.holds_against(STANDING)
    assert decision.holds_against(None)  # an empty registry, rebuilt
    assert decision.holds_against(own)
    assert not decision.holds_against(later)
    challenger = ChampionDecision(promotion="new", alias="challenger", reason="")
    assert challenger.holds_against(later)
