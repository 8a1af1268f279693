"""What every upcycler must do, as tests: subclass `UpcyclerConformance` and set `upcycler`.

Example:
    >>> class TestMyUpcycler(UpcyclerConformance):
    ...     upcycler = "my_package.my_module:MyUpcycler"
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import torch

from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State, Transformer
from mixopt.models.upcycling.base import upcycler_class
from mixopt.models.upcycling.receipt import Receipt


class UpcyclerConformance:
    """Tests that pytest collects in a subclass."""

    upcycler: str = "sparse"
    dense = ModelConfig(width=16, heads=2, experts=1, experts_per_token=1, vocab_size=32)
    moe = replace(dense, experts=3, experts_per_token=2)

    def seed_state(self) -> State:
        """A dense seed model."""
        return Transformer(self.dense, (0,)).proxy_state()

    def expert_states(self) -> dict[str, State]:
        """Three dense models branched from the seed."""
        generator = torch.Generator().manual_seed(7)
        return {
            name: {
                key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
                for key, tensor in self.seed_state().items()
            }
            for name in ("code", "prose", "web")
        }

    def samples(self) -> dict[str, np.ndarray]:
        """Token ids of two domains."""
        random = np.random.default_rng(0)
        return {name: random.integers(0, 32, (2, 12)) for name in ("code", "prose")}

    def test_the_state_loads_and_is_finite(self) -> None:
        """It is a state of the MoE's shape."""
        method = upcycler_class(self.upcycler)()
        state, _ = method.upcycle(self.seed_state(), self.expert_states(), self.dense, self.moe)
        model = Transformer(self.moe)
        model.load_proxy_state(state)
        assert torch.isfinite(model.logits(torch.arange(8).view(1, 1, 8))).all()

    def test_equal_seeds_give_equal_states(self) -> None:
        """Deterministic given the seed, which draws the routers."""
        method = upcycler_class(self.upcycler)()
        sources = self.seed_state(), self.expert_states(), self.dense, self.moe
        first, second, other = (method.upcycle(*sources, seed=seed)[0] for seed in (1, 1, 2))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())

    def test_inputs_are_left_alone(self) -> None:
        """Neither the call nor training the result changes the dense models."""
        seed, experts = self.seed_state(), self.expert_states()
        method = upcycler_class(self.upcycler)()
        state, _ = method.upcycle(seed, experts, self.dense, self.moe)
        for tensor in state.values():
            tensor.add_(1.0)
        assert all(torch.equal(t, self.seed_state()[n]) for n, t in seed.items())
        for domain, expert in self.expert_states().items():
            assert all(torch.equal(t, experts[domain][n]) for n, t in expert.items())

    def test_the_receipt_tells_what_was_done(self) -> None:
        """Origins, kept channels, entropies and loads are in range, and survive JSON."""
        method = upcycler_class(self.upcycler)()
        sources = self.seed_state(), self.expert_states(), self.dense, self.moe
        _, receipt = method.upcycle(*sources, samples=self.samples())
        assert len(receipt.experts) == self.moe.experts
        assert 0 <= receipt.channels_kept <= 1
        for domain in self.samples():
            assert 0 <= receipt.router_entropy[domain] <= math.log(self.moe.experts) + 1e-6
            assert len(receipt.loads[domain]) == self.moe.experts
            assert abs(sum(receipt.loads[domain]) - 1) < 1e-5
        assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt

    def test_what_should_preserve_the_function_does(self) -> None:
        """Where the method says so, the logits are the seed model's."""
        method = upcycler_class(self.upcycler)()
        sources = self.seed_state(), self.expert_states(), self.dense, self.moe
        _, receipt = method.upcycle(*sources, samples=self.samples())
        if method.preserves_function(self.moe):
            assert receipt.logit_difference is not None
            assert receipt.logit_difference < 1e-5
        else:
            assert receipt.logit_difference is None
