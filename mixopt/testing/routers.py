"""What every router must do, as tests: subclass `RouterConformance` and set `router`.

Example:
    >>> class TestMyRouter(RouterConformance):
    ...     router = "my_package.my_module:MyRouter"

Shapes: K proxies, N tokens, D width, E experts, S slots per token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.moe import MoE
from mixopt.models.routers.base import Router, Routing, RoutingContext, router_class

WIDTH, TOKENS, COHORT = 8, 24, 2


class RouterConformance:
    """Tests that pytest collects in a subclass; `settings` go into the router's `ModelConfig`."""

    router: str = "softmax"
    settings: dict[str, Any] = {}  # noqa: RUF012 -- read, never written

    def config(self, **settings: Any) -> ModelConfig:
        """A small shape with this router."""
        base = ModelConfig(
            width=WIDTH, layers=1, heads=2, expert_width=8, vocab_size=32, router=self.router
        )
        return replace(base, **{**self.settings, **settings})

    def build(self, config: ModelConfig, seeds: tuple[int, ...] = (0, 1)) -> Router:
        """An initialized router of one layer."""
        built = router_class(config.router)(config, len(seeds), 0)
        built.initialize([torch.Generator().manual_seed(seed) for seed in seeds])
        return built

    def tokens(self, cohort: int = COHORT, seed: int = 0) -> tuple[Tensor, RoutingContext]:
        """Hidden states and ids."""
        generator = torch.Generator().manual_seed(seed)
        x_KND = torch.randn(cohort, TOKENS, WIDTH, generator=generator)
        ids_KN = torch.randint(32, (cohort, TOKENS), generator=generator)
        return x_KND, RoutingContext(ids_KN)

    def test_shapes_ranges_and_counts(self) -> None:
        """Indices are experts or empty, gates finite and not negative, counts what was chosen."""
        for experts, chosen in ((4, 1), (4, 2), (4, 4), (7, 3), (1, 1)):
            config = self.config(experts=experts, experts_per_token=chosen)
            x_KND, context = self.tokens()
            routing = self.build(config)(x_KND, context)
            assert_routing(routing, experts)
            expected = count_naively(routing, experts)
            assert torch.equal(routing.counts_KE, expected)

    def test_one_expert_gets_every_token(self) -> None:
        """With a single expert, nothing can go anywhere else."""
        config = self.config(experts=1, experts_per_token=1)
        x_KND, context = self.tokens()
        routing = self.build(config)(x_KND, context)
        assert (routing.counts_KE <= TOKENS).all()
        assert (routing.indices_KNS <= 0).all()

    def test_ties_are_broken_without_repeating_an_expert(self) -> None:
        """All-equal states and logits give distinct experts and finite gates."""
        config = self.config(experts=4, experts_per_token=2)
        router = self.build(config)
        with torch.no_grad():
            for parameter in router.parameters():
                parameter.zero_()
        _, context = self.tokens()
        assert_routing(router(torch.zeros(COHORT, TOKENS, WIDTH), context), 4)

    def test_padding_takes_no_part(self) -> None:
        """Counts and losses are those of the real tokens alone, whatever the padding holds."""
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        mask_KN = torch.ones(COHORT, TOKENS, dtype=torch.bool)
        mask_KN[:, TOKENS // 2 :] = False
        other_KND = torch.where(mask_KN.unsqueeze(-1), x_KND, x_KND * 100 + 3)
        masked = replace(context, mask_KN=mask_KN)
        first = self.build(config)(x_KND, masked)
        second = self.build(config)(other_KND, masked)
        assert torch.equal(first.counts_KE, second.counts_KE)
        assert torch.equal(first.counts_KE, count_naively(first, 4, mask_KN))
        for name, loss_K in first.losses.items():
            assert torch.allclose(loss_K, second.losses[name])

    def test_a_token_does_not_depend_on_later_ones(self) -> None:
        """Causality: changing the end of the sequences leaves the routing of their start."""
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        changed_KND = x_KND.clone()
        changed_KND[:, TOKENS // 2 :] = -5 * x_KND[:, TOKENS // 2 :] + 1
        first, second = self.build(config)(x_KND, context), self.build(config)(changed_KND, context)
        half = TOKENS // 2
        assert torch.equal(first.indices_KNS[:, :half], second.indices_KNS[:, :half])
        assert torch.allclose(first.gates_KNS[:, :half], second.gates_KNS[:, :half])

    def test_equal_seeds_and_tokens_route_equally(self) -> None:
        """Determinism, bit for bit."""
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        first, second = self.build(config)(x_KND, context), self.build(config)(x_KND, context)
        assert torch.equal(first.indices_KNS, second.indices_KNS)
        assert torch.equal(first.gates_KNS, second.gates_KNS)

    def test_a_cohort_routes_as_its_proxies_alone(self) -> None:
        """Row k is what a router of seed k would do by itself."""
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        together = self.build(config, (3, 4))(x_KND, context)
        assert context.ids_KN is not None
        for k, seed in enumerate((3, 4)):
            own = RoutingContext(context.ids_KN[k : k + 1])
            alone = self.build(config, (seed,))(x_KND[k : k + 1], own)
            assert torch.equal(together.indices_KNS[k], alone.indices_KNS[0])
            assert torch.allclose(together.gates_KNS[k], alone.gates_KNS[0], atol=1e-6)
            for name, loss_K in together.losses.items():
                assert torch.allclose(loss_K[k], alone.losses[name][0], atol=1e-6)

    def test_bf16_states_are_routed_in_fp32(self) -> None:
        """Gates and losses stay fp32, and agree with routing the same states given as fp32."""
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        low_KND = x_KND.bfloat16()
        low = self.build(config)(low_KND, context)
        full = self.build(config)(low_KND.float(), context)
        assert low.gates_KNS.dtype == torch.float32
        assert torch.equal(low.indices_KNS, full.indices_KNS)
        assert all(loss_K.dtype == torch.float32 for loss_K in low.losses.values())

    def test_trained_parameters_get_gradients_through_the_layer(self) -> None:
        """Every router parameter that is to be trained is reached by the loss of an MoE layer."""
        config = self.config(experts=4, experts_per_token=2)
        layer = MoE(config, COHORT, 0)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(5))
        x_KND, context = self.tokens()
        y_KND, routing = layer(x_KND, x_KND, context)
        assert routing is not None
        total = y_KND.square().sum() + sum(loss_K.sum() for loss_K in routing.losses.values())
        torch.autograd.backward(total)
        assert layer.router is not None
        for name, parameter in layer.router.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_evaluation_leaves_state_alone(self) -> None:
        """In `eval()` no count is gathered and no buffer moves; `begin_step` forgets."""
        router = self.build(self.config(experts=4, experts_per_token=2))
        x_KND, context = self.tokens()
        router.eval()
        before = {name: buffer.clone() for name, buffer in router.named_buffers()}
        router(x_KND, context)
        for name, buffer in router.named_buffers():
            assert torch.equal(buffer, before[name]), name
        router.train()
        router.begin_step()
        routing = router(x_KND, context)
        assert torch.equal(router.step_counts_KE, routing.counts_KE)
        router(x_KND, context)
        assert torch.equal(router.step_counts_KE, 2 * routing.counts_KE)
        router.begin_step()
        assert not router.step_counts_KE.any()
        router.end_step()


def assert_routing(routing: Routing, experts: int) -> None:
    """Everything that holds of any routing."""
    indices_KNS, gates_KNS = routing.indices_KNS, routing.gates_KNS
    assert indices_KNS.dtype == torch.int64
    assert indices_KNS.shape == gates_KNS.shape
    assert gates_KNS.dtype == torch.float32
    assert (indices_KNS >= -1).all()
    assert (indices_KNS < experts).all()
    assert torch.isfinite(gates_KNS).all()
    assert (gates_KNS >= 0).all()
    assert (gates_KNS[indices_KNS < 0] == 0).all()
    for row_S in indices_KNS.flatten(0, 1).tolist():
        used = [index for index in row_S if index >= 0]
        assert len(set(used)) == len(used), f"an expert is chosen twice: {row_S}"
    assert not routing.counts_KE.requires_grad
    for name, loss_K in routing.losses.items():
        assert loss_K.shape == routing.counts_KE.shape[:1], name
        assert torch.isfinite(loss_K).all(), name


def count_naively(routing: Routing, experts: int, mask_KN: Tensor | None = None) -> Tensor:
    """Assignments of real tokens per expert, (K, E), one at a time."""
    counts_KE = torch.zeros(len(routing.indices_KNS), experts)
    for k, row_NS in enumerate(routing.indices_KNS.tolist()):
        for n, row_S in enumerate(row_NS):
            if mask_KN is None or bool(mask_KN[k, n]):
                for index in row_S:
                    if index >= 0:
                        counts_KE[k, index] += 1
    return counts_KE
