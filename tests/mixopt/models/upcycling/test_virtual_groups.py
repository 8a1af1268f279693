from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.base import Block, FeedForward, Upcycler, make_upcycler
from mixopt.testing.upcyclers import UpcyclerConformance

GATES = {"experts": 8, "experts_per_token": 4}


class TestDown(UpcyclerConformance):
    upcycler = "virtual-groups"
    moe = replace(UpcyclerConformance.moe, **GATES, expert_width=64)

    def test_the_function_is_kept(self) -> None:
        _, receipt = self.upcycled()
        assert receipt.preserves_function
        assert receipt.experts == ("seed",) * 8
        assert receipt.channels_kept == 1

    def test_routers_repeat_their_first_rows(self) -> None:
        weight = self.upcycled()[0]["blocks.0.feed_forward.router.weight"]
        assert torch.equal(weight[:, 0::2], weight[:, 1::2])
        assert not torch.equal(weight[:, 0], weight[:, 2])

    def test_a_part_of_a_copy_is_not_said_to_preserve(self) -> None:
        _, receipt = self.upcycled(replace(self.moe, experts_per_token=3))
        assert not receipt.preserves_function

    def test_another_expert_width_is_refused(self) -> None:
        with pytest.raises(StudyError, match="of dense layers of 128 the method makes 64"):
            self.upcycled(replace(self.moe, expert_width=128))

    def test_a_broken_copy_is_refused(self) -> None:
        with pytest.raises(StudyError, match="no whole number of copies"):
            self.upcycled(replace(self.moe, experts=7))


class TestRoot(UpcyclerConformance):
    upcycler = "virtual-groups"
    settings: Mapping[str, object] = {"placement": "root", "granularity": 4}
    moe = replace(UpcyclerConformance.moe, **GATES, expert_width=32)

    def test_the_function_is_kept(self) -> None:
        assert self.upcycled()[1].preserves_function


class TestCubeRoot(UpcyclerConformance):
    upcycler = "virtual-groups"
    settings: Mapping[str, object] = {"placement": "cube-root"}
    moe = replace(UpcyclerConformance.moe, **GATES, expert_width=64)

    def test_the_function_is_not_said_to_be_kept_nor_is_it(self) -> None:
        _, receipt = self.upcycled()
        assert not receipt.preserves_function
        assert receipt.logit_difference is not None
        assert receipt.logit_difference > 1e-4


def layer(hidden: int = 256, width: int = 64) -> FeedForward:
    """Random; the gate's outputs have a standard deviation of 0.5."""
    random = torch.Generator().manual_seed(0)
    return FeedForward(
        0.5 * width**-0.5 * torch.randn(hidden, width, generator=random),
        width**-0.5 * torch.randn(hidden, width, generator=random),
        hidden**-0.5 * torch.randn(width, hidden, generator=random),
    )


def run(part: FeedForward, x_ND: torch.Tensor) -> torch.Tensor:
    return (F.silu(x_ND @ part.gate.T) * (x_ND @ part.up.T)) @ part.down.T


def relative_error(method: Upcycler, gates: str, experts: int, k: int) -> float:
    """Of a mixture whose routers have equal rows for a copy's shards, against the dense layer."""
    random = torch.Generator().manual_seed(1)
    seed, x_ND = layer(), torch.randn(512, 64, generator=random)
    rows = method.router(0.02 * torch.randn(experts, 64, generator=random))
    probabilities_NE = torch.softmax(x_ND @ rows.T, -1)
    chosen = probabilities_NE.topk(k, -1)
    gates_Nk = chosen.values
    if gates == "topk, softmax":
        gates_Nk = gates_Nk / gates_Nk.sum(-1, keepdim=True)
    block = Block(0, seed, {}, experts, k, gates == "topk, softmax", random)
    outputs_END = torch.stack([run(part, x_ND) for part in method.experts(block)])
    spread_NE = torch.zeros_like(probabilities_NE).scatter(-1, chosen.indices, gates_Nk)
    moe = torch.einsum("ne,end->nd", spread_NE, outputs_END)
    dense = run(seed, x_ND)
    return float((moe - dense).norm() / dense.norm())


@pytest.mark.parametrize("placement", ["down", "root"])
def test_topk_then_softmax_is_exact(placement: str) -> None:
    method = make_upcycler("virtual-groups", {"granularity": 4, "placement": placement})
    assert relative_error(method, "topk, softmax", experts=16, k=8) < 1e-6


def test_the_cube_root_is_off_by_about_a_seventh() -> None:
    method = make_upcycler("virtual-groups", {"granularity": 4, "placement": "cube-root"})
    assert 0.14 < relative_error(method, "topk, softmax", experts=16, k=8) < 0.17


def test_softmax_then_topk_is_right_on_average() -> None:
    """Gates are near 1 / E with a new router, and never exactly."""
    method = make_upcycler("virtual-groups", {"granularity": 4})
    error = relative_error(method, "softmax, topk", experts=16, k=8)
    assert 1e-3 < error < 0.2
    assert not method.preserves_function(False, 16, 8)


@pytest.mark.parametrize("settings", [{"granularity": 0}, {"placement": "up"}])
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(StudyError, match=f"settings.{next(iter(settings))}"):
        make_upcycler("virtual-groups", settings)


def test_a_width_that_does_not_split_is_refused() -> None:
    with pytest.raises(StudyError, match="128 does not split into 3"):
        make_upcycler("virtual-groups", {"granularity": 3}).expert_width(128, 6)


def test_the_widths_are_each_others_inverse() -> None:
    method = make_upcycler("virtual-groups", {"granularity": 4})
    assert method.dense_width(method.expert_width(128, 8), 8) == 128
