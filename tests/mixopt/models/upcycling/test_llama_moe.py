from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.base import Block, FeedForward, make_upcycler
from mixopt.testing.upcyclers import UpcyclerConformance

MOE = replace(UpcyclerConformance.moe, experts=4, expert_width=32)


class TestRandom(UpcyclerConformance):
    upcycler = "llama-moe"
    moe = MOE

    def test_every_channel_is_in_one_expert(self) -> None:
        state, receipt = self.upcycled()
        gate_up = state["blocks.0.feed_forward.gate_up"]  # (E, D, 2F')
        gates = torch.cat([expert.chunk(2, 1)[0] for expert in gate_up], 1)
        dense = self.seed_state()["blocks.0.feed_forward.gate_up"][0].chunk(2, 1)[0]
        assert torch.equal(gates.sort(1).values, dense.sort(1).values)
        assert receipt.channels_kept == 1

    def test_the_function_is_not_said_to_be_kept_nor_is_it(self) -> None:
        _, receipt = self.upcycled()
        assert not receipt.preserves_function
        assert receipt.logit_difference is not None
        assert receipt.logit_difference > 1e-3


class TestKMeans(UpcyclerConformance):
    upcycler = "llama-moe"
    settings: Mapping[str, object] = {"split": "k-means"}
    moe = MOE


class TestCoActivation(UpcyclerConformance):
    upcycler = "llama-moe"
    settings: Mapping[str, object] = {"split": "co-activation"}
    moe = MOE


def layer(hidden: int = 64, width: int = 16) -> FeedForward:
    random = torch.Generator().manual_seed(0)
    return FeedForward(*(torch.randn(size, generator=random) for size in sizes(hidden, width)))


def sizes(hidden: int, width: int) -> list[tuple[int, int]]:
    return [(hidden, width), (hidden, width), (width, hidden)]


def run(part: FeedForward, x_ND: torch.Tensor) -> torch.Tensor:
    return (F.silu(x_ND @ part.gate.T) * (x_ND @ part.up.T)) @ part.down.T


@pytest.mark.parametrize("split", ["random", "k-means"])
@pytest.mark.parametrize("unit_gates", [True, False])
def test_all_experts_with_equal_gates_are_the_dense_layer(split: str, unit_gates: bool) -> None:
    seed, experts = layer(), 4
    random = torch.Generator().manual_seed(1)
    block = Block(0, seed, {}, experts, experts, unit_gates, random)
    parts = list(make_upcycler("llama-moe", {"split": split}).experts(block))
    x_ND = torch.randn(32, 16)
    together = sum(run(part, x_ND) / experts for part in parts)
    assert torch.allclose(together, run(seed, x_ND), rtol=1e-4, atol=1e-4)


def test_two_of_four_experts_are_the_sum_of_their_parts_times_rescale() -> None:
    seed = layer()
    block = Block(0, seed, {}, 4, 2, True, torch.Generator().manual_seed(1))
    parts = list(make_upcycler("llama-moe", {"rescale": 2.0}).experts(block))
    x_ND = torch.randn(8, 16)
    mixture = 0.5 * run(parts[0], x_ND) + 0.5 * run(parts[3], x_ND)
    channels = [
        int(torch.nonzero((seed.gate == row).all(1)))
        for part in (parts[0], parts[3])
        for row in part.gate
    ]
    half = run(seed.channels(torch.tensor(channels)), x_ND)
    assert torch.allclose(mixture, 2 * half, rtol=1e-4, atol=1e-4)


def test_k_means_puts_channels_that_read_alike_together() -> None:
    seed = layer(hidden=12)
    kinds = torch.arange(12) % 3
    seed.up[:] = 0.01 * seed.up + torch.eye(16)[kinds]
    block = Block(0, seed, {}, 3, 1, True, torch.Generator().manual_seed(0))
    for part in make_upcycler("llama-moe", {"split": "k-means"}).experts(block):
        assert len(part.up.argmax(1).unique()) == 1


def test_co_activation_puts_channels_that_are_active_together_together() -> None:
    """Channels read different tokens: each kind is active at a third of them."""
    seed = layer(hidden=12)
    kinds = torch.arange(12) % 3
    seed.up[:] = seed.up.abs() * torch.eye(16)[kinds]  # rows differ in size, not in place
    seed.gate[:] = 1.0
    inputs = torch.eye(16)[torch.arange(30) % 3]
    block = Block(0, seed, {}, 3, 1, True, torch.Generator().manual_seed(0), inputs)
    for part in make_upcycler("llama-moe", {"split": "co-activation"}).experts(block):
        assert len(part.up.argmax(1).unique()) == 1


def test_co_activation_without_samples_is_refused() -> None:
    block = Block(0, layer(), {}, 4, 2, True, torch.Generator())
    with pytest.raises(StudyError, match="co-activation looks at samples"):
        next(make_upcycler("llama-moe", {"split": "co-activation"}).experts(block))


@pytest.mark.parametrize("settings", [{"split": "graph"}, {"rescale": 0.0}])
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(StudyError, match=f"settings.{next(iter(settings))}"):
        make_upcycler("llama-moe", settings)
