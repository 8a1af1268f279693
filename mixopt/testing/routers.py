"""What every router must do, as tests: subclass `RouterConformance` and set `router`.

Example:
    >>> class TestMyRouter(RouterConformance):
    ...     router = "my_package.my_module:MyRouter"

Shapes: K proxies, N tokens, D width, E experts, S slots per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.moe import MoE, moe_layer
from mixopt.models.routers.base import Router, Routing, RoutingContext, router_class, row_mask
from mixopt.models.single import SingleTransformer
from mixopt.models.transformer import Transformer
from mixopt.testing.naive_routers import REFERENCES, Choice, run_layer

WIDTH, TOKENS, COHORT, VOCABULARY = 8, 24, 2, 32


class RouterConformance:
    """Tests that pytest collects in a subclass; `settings` go into the router's `ModelConfig`.

    Layers are compared with loops over tokens and experts: those of `REFERENCES` for a router of
    mixopt; override `naive` for your own, else the loops take your router's own routing.
    """

    router: str = "softmax"
    settings: dict[str, Any] = {}  # noqa: RUF012 -- read, never written
    causal: bool = True

    def config(self, **settings: Any) -> ModelConfig:
        """A small shape with this router."""
        shape: dict[str, Any] = {"width": WIDTH, "layers": 2, "heads": 2, "expert_width": 8}
        given = {"router": self.router, **self.settings, **settings}
        return ModelConfig(**shape, vocab_size=VOCABULARY, **given)

    def build(self, config: ModelConfig, seeds: tuple[int, ...] = (0, 1)) -> Router:
        """An initialized router of one layer."""
        built = router_class(config.router)(config, len(seeds), 0)
        built.initialize([torch.Generator().manual_seed(seed) for seed in seeds])
        return built

    def layers(self, config: ModelConfig) -> list[MoE]:
        """Two layers, one on the other, with weights large enough for errors to show."""
        layers = [moe_layer(config, COHORT, i) for i in range(2)]
        routers = [layer.router for layer in layers if layer.router is not None]
        generator = torch.Generator().manual_seed(5)
        for layer in layers:
            assert layer.router is not None
            layer.router.join(routers)
            layer.initialize([torch.Generator().manual_seed(k) for k in range(COHORT)])
            with torch.no_grad():
                frozen = [buffer for buffer in layer.buffers() if buffer.dim() > 2]
                for weight in (*layer.parameters(), *frozen):
                    weight += 0.3 * torch.randn(weight.shape, generator=generator)
        return layers

    def naive(
        self, router: Router, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
    ) -> list[Choice] | None:
        """Where the tokens of proxy k go, found in the plainest way; None if there is no such."""
        reference = REFERENCES.get(self.router)
        return None if reference is None else reference(router, k, x_ND, ids, below)

    def tokens(self, cohort: int = COHORT, seed: int = 0) -> tuple[Tensor, RoutingContext]:
        """Hidden states and ids."""
        generator = torch.Generator().manual_seed(seed)
        x_KND = torch.randn(cohort, TOKENS, WIDTH, generator=generator)
        ids_KN = torch.randint(VOCABULARY, (cohort, TOKENS), generator=generator)
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
        assert (routing.counts_KE <= routing.indices_KNS.shape[1]).all()
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
        assert first.losses.keys() == second.losses.keys()
        for name, loss_K in first.losses.items():
            assert torch.allclose(loss_K, second.losses[name])

    def test_a_token_does_not_depend_on_later_ones(self) -> None:
        """Causality: changing the end of the sequences leaves the routing of their start.

        A router that is not causal says so by `causal = False`, and its settings refuse it.
        """
        if not self.causal:
            pytest.skip("not causal")
        config = self.config(experts=4, experts_per_token=2)
        x_KND, context = self.tokens()
        changed_KND = x_KND.clone()
        changed_KND[:, TOKENS // 2 :] = -5 * x_KND[:, TOKENS // 2 :] + 1
        first, second = self.build(config)(x_KND, context), self.build(config)(changed_KND, context)
        half = first.indices_KNS.shape[1] // 2
        for k in range(COHORT):
            for before, after in zip(slots(first, k)[:half], slots(second, k)[:half], strict=True):
                assert before.keys() == after.keys()
                assert all(abs(before[e] - after[e]) < 1e-6 for e in before)

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
            for mine, own_slots in zip(slots(together, k), slots(alone, 0), strict=True):
                assert mine.keys() == own_slots.keys()
                assert all(abs(mine[e] - own_slots[e]) < 1e-6 for e in mine)
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

    def test_trained_parameters_get_gradients_through_the_layers(self) -> None:
        """Every router parameter that is to be trained is reached by the loss of two MoE layers."""
        layers = self.layers(self.config(experts=4, experts_per_token=2))
        x_KND, context = self.tokens()
        total = torch.zeros(())
        for layer in layers:
            y_KND, routing = layer(x_KND, x_KND, context)
            assert routing is not None
            total = total + y_KND.square().sum() + sum(v.sum() for v in routing.losses.values())
            context = replace(context, below=routing)
        torch.autograd.backward(total)
        for layer in layers:
            assert layer.router is not None
            for name, parameter in layer.router.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().sum() > 0, name

    def test_the_layers_are_those_of_loops_over_tokens_and_experts(self) -> None:
        """Outputs and gradients of two layers, for one expert per token and for more."""
        for chosen in (1, 2):
            config = self.config(experts=4, experts_per_token=chosen)
            layers = self.layers(config)
            x_KND, context = self.tokens()
            towards_KND = torch.randn(x_KND.shape, generator=torch.Generator().manual_seed(9))
            fast, slow = x_KND.clone().requires_grad_(), x_KND.clone().requires_grad_()
            fast_KND = self._run_fast(layers, fast, context)
            found = _gradients((fast_KND * towards_KND).sum(), fast, layers)
            slow_KND = self._run_slow(layers, slow, context)
            expected = _gradients((slow_KND * towards_KND).sum(), slow, layers)
            assert torch.allclose(fast_KND, slow_KND, atol=1e-4, rtol=1e-4)
            for name, gradient in found.items():
                assert torch.allclose(gradient, expected[name], atol=2e-3, rtol=2e-3), name

    def test_bf16_products_stay_close_to_fp32(self) -> None:
        """A layer given its states in bf16 routes as before, and its output is close."""
        layer = self.layers(self.config(experts=4, experts_per_token=2))[0]
        x_KND, context = self.tokens()
        full_KND, of_full = layer(x_KND, x_KND, context)
        low_KND, of_low = layer(x_KND.bfloat16(), x_KND, context)
        assert low_KND.dtype == torch.bfloat16
        assert of_full is not None
        assert of_low is not None
        assert torch.equal(of_full.indices_KNS, of_low.indices_KNS)
        assert (low_KND.float() - full_KND).abs().max() < 0.05 * full_KND.abs().max()

    def test_experts_that_nobody_chose_do_no_harm(self) -> None:
        """With equal tokens few experts get any: outputs and gradients stay finite."""
        layer = self.layers(self.config(experts=4, experts_per_token=1))[0]
        x_KND = torch.ones(COHORT, TOKENS, WIDTH, requires_grad=True)
        ids_KN = torch.zeros(COHORT, TOKENS, dtype=torch.long)
        y_KND, routing = layer(x_KND, x_KND, RoutingContext(ids_KN))
        assert routing is not None
        losses = [loss_K.sum() for loss_K in routing.losses.values()]
        torch.autograd.backward(y_KND.square().sum() + sum(losses))
        for name, parameter in layer.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name

    def test_state_survives_a_checkpoint(self) -> None:
        """A router that is loaded routes on, and changes on, as the one that was saved."""
        config = self.config(experts=4, experts_per_token=2)
        saved, loaded = self.build(config), self.build(config, (7, 8))
        x_KND, context = self.tokens()
        for step in range(3):
            saved.begin_step(step / 4)
            saved(x_KND, context)
            saved.end_step()
        state = {name: tensor.clone() for name, tensor in saved.state_dict().items()}
        assert all(len(tensor) == COHORT for tensor in state.values())
        loaded.load_state_dict(state)
        for router in (saved, loaded):
            router.begin_step(0.9)
        first, second = saved(x_KND, context), loaded(x_KND, context)
        assert torch.equal(first.indices_KNS, second.indices_KNS)
        assert torch.equal(first.gates_KNS, second.gates_KNS)
        for name, loss_K in first.losses.items():
            assert torch.equal(loss_K, second.losses[name]), name
        for router in (saved, loaded):
            router.end_step()
        for name, tensor in saved.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name

    def test_weights_are_counted_as_they_are(self) -> None:
        """`ModelConfig` counts a model's weights, frozen ones too, but no embedding and state."""
        for experts, chosen in ((4, 2), (6, 3)):
            config = self.config(experts=experts, experts_per_token=chosen, shared_experts=1)
            model = Transformer(config)
            weights = dict(model.named_parameters())
            weights |= {n: t for n, t in model.state_dict().items() if t.dim() > 2}
            there = sum(t.numel() for n, t in weights.items() if n != "embedding")
            assert config.total_params() == there
            # two layers of few experts may share weights and so run more than they have
            assert 0 < config.active_params() <= 2 * there

    def test_a_model_of_a_cohort_is_its_models_alone(self) -> None:
        """Losses and gradients of two proxies in one model are those of two models."""
        config = self.config(experts=4, experts_per_token=2)
        _, context = self.tokens()
        assert context.ids_KN is not None
        ids_KBT = context.ids_KN.view(COHORT, 2, -1)
        together = Transformer(config, (3, 4))
        _backward(together, ids_KBT)
        for k, seed in enumerate((3, 4)):
            alone = Transformer(config, (seed,))
            _backward(alone, ids_KBT[k : k + 1])
            gradients = {name: p.grad for name, p in together.named_parameters()}
            for name, parameter in alone.named_parameters():
                mine, theirs = parameter.grad, gradients[name]
                assert (mine is None) == (theirs is None), name
                if mine is not None and theirs is not None:
                    assert torch.allclose(mine[0], theirs[k], atol=1e-5, rtol=1e-3), name

    def test_a_model_without_the_axis_is_a_cohort_of_one(self) -> None:
        """A full run trains the same, activations recomputed or not; it may shard parameters.

        A router that reads parameters of other layers says so by `reads_other_layers`.
        """
        config = self.config(experts=4, experts_per_token=2)
        _, context = self.tokens()
        assert context.ids_KN is not None
        ids_KBT = context.ids_KN[:1].view(1, 2, -1)
        alone = Transformer(config, (3,))
        _backward(alone, ids_KBT)
        alone.end_step()
        gradients = {name: p.grad for name, p in alone.named_parameters()}
        for recompute in (False, True):
            single = SingleTransformer(config, 3, recompute=recompute)
            single.begin_step()
            nats, auxiliary, _ = single.loss(ids_KBT[0, :, :-1], ids_KBT[0, :, 1:])
            torch.autograd.backward((nats + auxiliary).sum())
            single.end_step()
            for name, weight in single.named_weights():
                mine, theirs = weight.grad, gradients[name]
                assert (mine is None) == (theirs is None), name
                if mine is not None and theirs is not None:
                    assert torch.equal(mine, theirs[0].reshape(mine.shape)), name
            for name, tensor in single.buffers_to_keep().items():
                assert torch.equal(tensor, alone.state_dict()[name]), name

    def test_no_position_of_a_model_sees_a_later_one(self) -> None:
        """Causality through all layers and what they hand to each other."""
        if not self.causal:
            pytest.skip("not causal")
        model = Transformer(self.config(experts=4, experts_per_token=2)).eval()
        ids_KBT = torch.randint(VOCABULARY, (1, 2, 12), generator=torch.Generator().manual_seed(0))
        changed_KBT = ids_KBT.clone()
        changed_KBT[..., 7:] = (changed_KBT[..., 7:] + 1) % VOCABULARY
        before, after = model.logits(ids_KBT), model.logits(changed_KBT)
        assert torch.allclose(before[:, :, :7], after[:, :, :7], atol=1e-5)
        assert not torch.allclose(before[:, :, 7:], after[:, :, 7:], atol=1e-3)

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
        assert torch.equal(router.step_counts_KE[:, :4], routing.counts_KE)
        router(x_KND, context)
        assert torch.equal(router.step_counts_KE[:, :4], 2 * routing.counts_KE)
        router.begin_step()
        assert not router.step_counts_KE.any()
        assert not router.step_tokens_K.any()
        before = {name: buffer.clone() for name, buffer in router.named_buffers()}
        router.end_step()
        for name, buffer in router.named_buffers():
            assert torch.equal(buffer, before[name]), f"{name} moved by a step without tokens"

    def _run_fast(self, layers: list[MoE], x_KND: Tensor, context: RoutingContext) -> Tensor:
        for layer in layers:
            x_KND, routing = layer(x_KND, x_KND, context)
            context = replace(context, below=routing)
        return x_KND

    def _run_slow(self, layers: list[MoE], x_KND: Tensor, context: RoutingContext) -> Tensor:
        assert context.ids_KN is not None
        outputs = []
        for k, ids_N in enumerate(context.ids_KN):
            x_ND, below = x_KND[k], list[Choice]()
            for layer in layers:

                def reference(
                    router: Router,
                    k: int,
                    x_ND: Tensor,
                    ids: list[int],
                    below: Sequence[Choice],
                ) -> list[Choice]:
                    found = self.naive(router, k, x_ND, ids, below)
                    return self._own(router, k, x_ND, ids) if found is None else found

                x_ND, below = run_layer(layer, k, x_ND, ids_N.tolist(), below, reference)
            outputs.append(x_ND)
        return torch.stack(outputs)

    def _own(self, router: Router, k: int, x_ND: Tensor, ids: list[int]) -> list[Choice]:
        """The choices of a router without a reference, as it makes them itself."""
        x_KND = torch.zeros(COHORT, *x_ND.shape).index_add(0, torch.tensor([k]), x_ND.unsqueeze(0))
        routing = router(x_KND, RoutingContext(torch.tensor(ids).expand(COHORT, -1)))
        return [
            Choice({e: gates_S[s] for s, e in enumerate(row_S) if e >= 0})
            for row_S, gates_S in zip(
                routing.indices_KNS[k].tolist(), routing.gates_KNS[k], strict=True
            )
        ]


def _backward(model: Transformer, ids_KBT: Tensor) -> None:
    """One micro-batch of a step."""
    model.begin_step()
    losses = model.loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
    torch.autograd.backward((losses.nats_K + losses.auxiliary_K).sum())


def _gradients(loss: Tensor, x_KND: Tensor, layers: list[MoE]) -> dict[str, Tensor]:
    """Gradients by name; zeros where the loss does not reach."""
    inputs = {"x": x_KND}
    for i, layer in enumerate(layers):
        inputs |= {f"{i}.{name}": parameter for name, parameter in layer.named_parameters()}
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(inputs.items(), found, strict=True)
    }


def slots(routing: Routing, k: int) -> list[dict[int, float]]:
    """Expert → gate of every row of proxy k: empty slots and their number do not matter."""
    return [
        {e: g for e, g in zip(row_S, gates_S, strict=True) if e >= 0}
        for row_S, gates_S in zip(
            routing.indices_KNS[k].tolist(), routing.gates_KNS[k].tolist(), strict=True
        )
    ]


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
    mask_KN = row_mask(routing, mask_KN)
    counts_KE = torch.zeros(len(routing.indices_KNS), experts)
    for k, row_NS in enumerate(routing.indices_KNS.tolist()):
        for n, row_S in enumerate(row_NS):
            if mask_KN is None or bool(mask_KN[k, n]):
                for index in row_S:
                    if index >= 0:
                        counts_KE[k, index] += 1
    return counts_KE
