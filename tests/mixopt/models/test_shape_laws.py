"""Laws of MoE shapes speak within the range of their runs, and are silent outside it."""

from __future__ import annotations

import dataclasses

import pytest

from mixopt.models.config import ModelConfig
from mixopt.models.shape_laws import (
    Start,
    fine_grained_loss,
    joint_loss,
    shape_advice,
    tokens_from_scratch,
)

MODEL = ModelConfig(
    width=768,
    layers=12,
    heads=12,
    experts=8,
    experts_per_token=1,
    expert_width=2048,
    vocab_size=32_000,
)
START = Start(MODEL, dense_tokens=20_000_000_000, tokens=5_000_000_000)


def test_the_joint_law_is_as_calculated_by_hand() -> None:
    # Ê of one expert is its start, 2.0732: 1 / (1/2.0732 − 1/290.4521 + 1/290.4521)
    # 35.91 · 2.0732^−.2285 · (1e9)^(−.1889 + .0098 ln 2.0732) = .7037
    # 35.98 · 2.0732^.5529 · (2e10)^(−.1775 − .0259 ln 2.0732) = .5098
    assert joint_loss(1e9, 2e10, 1) == pytest.approx(0.7037 + 0.5098 + 1.3637, abs=2e-3)


def test_more_experts_tokens_and_parameters_lower_the_joint_loss_in_range() -> None:
    losses = [joint_loss(1e8, 2e10, e) for e in (1, 2, 4, 8, 16, 32)]
    assert losses == sorted(losses, reverse=True)
    assert joint_loss(1e8, 4e10, 8) < joint_loss(1e8, 2e10, 8)
    assert joint_loss(2e8, 2e10, 8) < joint_loss(1e8, 2e10, 8)


def test_the_fine_grained_law_is_as_calculated_by_hand() -> None:
    # .47 + (2.1 / 8^.58 + 18.1) / (6.4e9)^.115 + 30.8 / (4.37e9)^.147
    assert fine_grained_loss(6.4e9, 4.37e9, 8) == pytest.approx(0.47 + 1.396 + 1.180, abs=2e-3)
    assert fine_grained_loss(1e9, 2e10, 16) < fine_grained_loss(1e9, 2e10, 1)


def test_a_moe_from_scratch_overtakes_its_dense_model_where_the_law_says() -> None:
    needed = tokens_from_scratch(START)
    assert needed is not None
    assert needed < START.dense_tokens
    dense = joint_loss(START.dense_active, START.dense_tokens, 1)
    assert joint_loss(START.active, needed, 8) == pytest.approx(dense, abs=1e-4)


def test_a_short_budget_is_told_to_upcycle_and_a_long_one_that_nobody_knows() -> None:
    needed = tokens_from_scratch(START)
    assert needed is not None
    short = dataclasses.replace(START, tokens=int(0.9 * needed))
    long = dataclasses.replace(START, tokens=int(1.1 * needed))
    assert "it stays behind: upcycle" in shape_advice(short)[1]
    assert "this law cannot say" in shape_advice(long)[1]


def test_every_line_names_its_law_and_the_range() -> None:
    experts, start = shape_advice(START)
    for line in (experts, start):
        assert "2502.05172" in line
        assert "fitted up to 2.7B active and 5B parameters" in line
    assert experts.startswith("Experts: at 110M active parameters and 5B tokens from scratch")
    assert "puts 32 experts with one per token lowest" in experts


def test_experts_that_would_not_fit_the_law_are_not_advised() -> None:
    large = dataclasses.replace(
        MODEL, width=2048, layers=16, heads=16, experts=4, expert_width=4096
    )
    (experts, _) = shape_advice(dataclasses.replace(START, model=large))
    assert "puts 8 experts" in experts


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 600_000},
        {"tokens": 10**12},
        {"model": ModelConfig(vocab_size=2048)},
        {"model": dataclasses.replace(MODEL, experts=64)},
        {"model": dataclasses.replace(MODEL, experts=1)},
        {"model": dataclasses.replace(MODEL, experts=4, experts_per_token=4)},
        {"model": dataclasses.replace(MODEL, width=4096, layers=32, heads=32)},
    ],
)
def test_outside_their_range_the_laws_are_silent(changes: dict[str, object]) -> None:
    assert shape_advice(dataclasses.replace(START, **changes)) == []  # type: ignore[arg-type]


def test_without_enough_dense_tokens_only_the_experts_are_advised() -> None:
    (line,) = shape_advice(dataclasses.replace(START, dense_tokens=600_000))
    assert line.startswith("Experts")


def test_granularity_is_advised_at_the_expansion_that_was_fitted() -> None:
    small = dataclasses.replace(MODEL, width=512, layers=8, heads=8, experts=64, expert_width=1024)
    start = Start(small, 20_000_000_000, 20_000_000_000)
    (line,) = shape_advice(start)
    assert line.startswith("Granularity: the fine-grained law (2402.07871)")
    assert "the cost of routing is not counted" in line
