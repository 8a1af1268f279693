"""What every upcycler must do, as tests: subclass `UpcyclerConformance` and set `upcycler`.

Example:
    >>> class TestMyUpcycler(UpcyclerConformance):
    ...     upcycler = "my_package.my_module:MyUpcycler"
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State, Transformer
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.states import DenseModels, upcycle_states


class UpcyclerConformance:
    """Tests that pytest collects in a subclass."""

    upcycler: str = "sparse"
    settings: Mapping[str, Any] = MappingProxyType({})
    dense = ModelConfig(width=16, heads=2, experts=1, experts_per_token=1, vocab_size=32)
    moe = replace(dense, experts=3, experts_per_token=2)

    @property
    def method(self) -> Method:
        """The upcycler with its settings."""
        return Method(self.upcycler, self.settings)

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

    def upcycled(
        self,
        moe: ModelConfig | None = None,
        seed: int = 0,
        experts: Mapping[str, State] | None = None,
    ) -> tuple[State, Receipt]:
        """The MoE of these dense models, and the receipt on the samples."""
        experts = self.expert_states() if experts is None else experts
        models = DenseModels(self.seed_state(), experts, self.dense)
        return upcycle_states(self.method, models, moe or self.moe, seed, self.samples())

    def test_the_state_loads_and_is_finite(self) -> None:
        """It is a state of the MoE's shape."""
        state, _ = self.upcycled()
        model = Transformer(self.moe)
        model.load_proxy_state(state)
        assert torch.isfinite(model.logits(torch.arange(8).view(1, 1, 8))).all()

    def test_equal_seeds_give_equal_states(self) -> None:
        """Deterministic given the seed, which draws the routers."""
        first, second, other = (self.upcycled(seed=seed)[0] for seed in (1, 1, 2))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())

    def test_inputs_are_left_alone(self) -> None:
        """Neither the call nor training the result changes the dense models."""
        seed, experts = self.seed_state(), self.expert_states()
        models = DenseModels(seed, experts, self.dense)
        state, _ = upcycle_states(self.method, models, self.moe, 0, self.samples())
        for tensor in state.values():
            tensor.add_(1.0)
        assert all(torch.equal(t, self.seed_state()[n]) for n, t in seed.items())
        for domain, expert in self.expert_states().items():
            assert all(torch.equal(t, experts[domain][n]) for n, t in expert.items())

    def test_the_receipt_tells_what_was_done(self) -> None:
        """Origins, kept channels, entropies and loads are in range, and survive JSON."""
        _, receipt = self.upcycled()
        assert len(receipt.experts) == self.moe.experts
        assert 0 <= receipt.channels_kept <= 1
        for domain in self.samples():
            assert 0 <= receipt.router_entropy[domain] <= math.log(self.moe.experts) + 1e-6
            assert len(receipt.loads[domain]) == self.moe.experts
            assert abs(sum(receipt.loads[domain]) - 1) < 1e-5
        for dead in receipt.dead_experts:
            layer, expert = map(int, dead.split("."))
            assert (layer < self.moe.layers, expert < self.moe.experts) == (True, True)
        assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt

    def test_what_should_preserve_the_function_does(self) -> None:
        """Where the method says so, the logits are the seed model's."""
        _, receipt = self.upcycled()
        assert receipt.logit_difference is not None
        assert not receipt.preserves_function or receipt.logit_difference < 1e-5
