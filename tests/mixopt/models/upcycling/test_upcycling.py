from dataclasses import replace

import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.base import upcycler_class
from mixopt.models.upcycling.receipt import Receipt
from mixopt.testing.upcyclers import UpcyclerConformance


class TestBranchTrainMix(UpcyclerConformance):
    upcycler = "branch-train-mix"

    def test_experts_are_the_dense_layers_in_order_and_the_rest_is_their_mean(self) -> None:
        experts = self.expert_states()
        state, receipt = self.upcycled(experts=experts)
        assert receipt.experts == ("code", "prose", "web")
        for e, dense in enumerate(experts.values()):
            for part in ("gate_up", "down"):
                name = f"blocks.1.feed_forward.{part}"
                assert torch.equal(state[name][e], dense[name][0])
        name = "blocks.0.attention.qkv"
        mean = sum(dense[name] for dense in experts.values()) / 3
        assert torch.allclose(state[name], mean, atol=1e-7)

    def test_the_average_is_taken_in_fp32_even_of_bf16_states(self) -> None:
        experts = {
            domain: {name: tensor.bfloat16() for name, tensor in state.items()}
            for domain, state in self.expert_states().items()
        }
        state, _ = self.upcycled(experts=experts)
        assert all(tensor.dtype == torch.float32 for tensor in state.values())
        mean = torch.stack([s["embedding"].float() for s in experts.values()]).mean(0)
        assert torch.equal(state["embedding"], mean)
        assert not torch.equal(mean, mean.bfloat16().float())

    def test_with_one_more_expert_the_seed_is_the_last(self) -> None:
        seed = self.seed_state()
        moe = replace(self.moe, experts=4)
        state, receipt = self.upcycled(moe)
        assert receipt.experts == ("code", "prose", "web", "seed")
        name = "blocks.0.feed_forward.down"
        assert torch.equal(state[name][3], seed[name][0])

    def test_another_number_of_experts_is_refused(self) -> None:
        moe = replace(self.moe, experts=6)
        with pytest.raises(StudyError, match="6 experts cannot be made of 3"):
            self.upcycled(moe)


class TestSparse(UpcyclerConformance):
    upcycler = "sparse"

    def test_gates_that_do_not_sum_to_one_are_not_said_to_preserve(self) -> None:
        assert self.upcycled()[1].preserves_function
        for moe in (replace(self.moe, renormalize=False), replace(self.moe, experts_per_token=1)):
            assert not self.upcycled(moe)[1].preserves_function

    def test_another_expert_width_is_refused(self) -> None:
        moe = replace(self.moe, expert_width=self.moe.expert_width // 2)
        with pytest.raises(StudyError, match="expert_width"):
            self.upcycled(moe)

    def test_another_trunk_is_refused_by_name(self) -> None:
        moe = replace(self.moe, layers=3)
        with pytest.raises(StudyError, match="layers"):
            self.upcycled(moe)


def test_an_unknown_upcycler_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(StudyError, match="branch-train-mix"):
        upcycler_class("magic")


def test_a_receipt_of_another_version_is_refused() -> None:
    values = Receipt("sparse", ("seed",), 1.0).to_json()
    with pytest.raises(ValueError, match="no receipt of version 2"):
        Receipt.from_json({**values, "version": 1})
