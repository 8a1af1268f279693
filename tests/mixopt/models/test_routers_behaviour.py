"""What is particular to single routers: losses, state from step to step, settings, sizes."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from mixopt.core.errors import StudyError, TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.moe import moe_layer
from mixopt.models.routers import ROUTERS
from mixopt.models.routers.base import (
    Router,
    Routing,
    RoutingContext,
    compact,
    gate_entropies,
    reaches_none,
    router_class,
    row_mask,
)
from mixopt.models.routers.dselect_k import smooth_step
from mixopt.models.transformer import Transformer
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.states import DenseModels, check_shapes, upcycle_states
from mixopt.testing.naive_routers import REFERENCES, run_expert

WIDTH = 8


def _config(router: str, **settings: object) -> ModelConfig:
    given: dict = {"experts": 4, "experts_per_token": 2, "expert_width": 8, **settings}
    return ModelConfig(width=WIDTH, layers=2, heads=2, vocab_size=32, router=router, **given)


def _router(name: str, cohort: int = 1, layer: int = 0, **settings: object) -> Router:
    router = router_class(name)(_config(name, **settings), cohort, layer)
    router.initialize([torch.Generator().manual_seed(k) for k in range(cohort)])
    return router


def _states(cohort: int = 1, tokens: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(cohort, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def _livelier(router: Router) -> Router:
    with torch.no_grad():
        for parameter in router.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
            parameter.add_(noise)
    return router


# balance


def test_micro_batch_balance_forgets_the_micro_batches_before() -> None:
    losses = {}
    for balance in ("global", "micro"):
        router = _livelier(_router("softmax", balance=balance))
        router.begin_step()
        router(_states(seed=1), RoutingContext())
        losses[balance] = router(_states(seed=2), RoutingContext()).losses["balance"]
    alone = _livelier(_router("softmax"))(_states(seed=2), RoutingContext()).losses["balance"]
    assert torch.allclose(losses["micro"], alone)
    assert not torch.allclose(losses["global"], alone)


def test_switch_balances_within_the_micro_batch_whatever_the_model_says() -> None:
    router = _livelier(_router("switch", experts_per_token=1, balance_coefficient=1.0))
    router.begin_step()
    router(_states(seed=1), RoutingContext())
    x_KND = _states(seed=2)
    routing = router(x_KND, RoutingContext())
    p_NE = (x_KND[0] @ router.weight[0]).softmax(-1)
    f_E = torch.bincount(p_NE.argmax(-1), minlength=4) / len(p_NE)
    assert torch.allclose(routing.losses["balance"][0], 4 * (f_E * p_NE.mean(0)).sum())
    assert routing.losses.keys() == {"balance"}


def test_the_bias_of_loss_free_balance_turns_tokens_to_the_idle_expert() -> None:
    router = _router("loss-free", experts_per_token=1, router_settings={"rate": 0.05})
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0, 0] = torch.tensor([1.0, 0.5, 0.0, -0.5])
    x_KND = torch.zeros(1, 100, WIDTH)
    x_KND[0, :, 0] = torch.linspace(0.1, 1.0, 100)
    first = router(x_KND, RoutingContext())
    assert first.counts_KE.tolist() == [[100, 0, 0, 0]]
    assert not first.losses
    for _ in range(60):
        router.begin_step()
        last = router(x_KND, RoutingContext())
        router.end_step()
        assert abs(float(router.bias_KE.sum())) < 1e-5
    assert (last.counts_KE > 0).sum() > 1
    # the gate is the score without the bias
    score = torch.sigmoid(x_KND[0] @ router.weight[0])
    expected = score.gather(-1, last.indices_KNS[0])
    assert torch.allclose(last.gates_KNS[0], expected)


def test_the_bias_moves_once_per_step_by_its_rate_and_not_in_evaluation() -> None:
    router = _livelier(_router("loss-free", cohort=2, router_settings={"rate": 0.01}))
    router.eval()
    router(_states(2), RoutingContext())
    router.end_step()
    assert not router.bias_KE.any()
    router.train()
    for part in (1, 2, 3):
        router(_states(2, seed=part), RoutingContext())
    counts_KE = router.step_counts_KE.clone()
    router.end_step()
    moved_KE = 0.01 * torch.sign(counts_KE.mean(-1, keepdim=True) - counts_KE)
    assert torch.allclose(router.bias_KE, moved_KE - moved_KE.mean(-1, keepdim=True), atol=1e-7)


def test_the_sequence_loss_of_loss_free_balance_is_that_of_each_sequence_alone() -> None:
    settings = {"sequence_coefficient": 0.5}
    router = _livelier(_router("loss-free", experts_per_token=1, router_settings=settings))
    router.bias_KE[0] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # expert 0 gets all, whoever wants it
    x_KND = _states(tokens=18)
    mask_KN = (torch.arange(18) % 6 < torch.tensor([4, 6, 0]).repeat_interleave(6)).unsqueeze(0)
    routing = router(x_KND, RoutingContext(mask_KN=mask_KN, length=6))
    assert routing.counts_KE.tolist() == [[10, 0, 0, 0]]
    losses = []
    for start, real in ((0, 4), (6, 6)):
        scores_TE = (x_KND[0, start : start + real] @ router.weight[0]).sigmoid()  # no bias
        f_E = 4 * torch.bincount(scores_TE.argmax(-1), minlength=4) / real
        shares_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
        losses.append((f_E * shares_TE.mean(0)).sum())
    assert torch.allclose(routing.losses["sequence"][0], 0.5 * (losses[0] + losses[1]) / 2)


def test_adamoe_does_not_mind_which_null_expert_is_taken() -> None:
    router = _router("adamoe", router_settings={"null": 3}).eval()
    p_KNC = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    spread = torch.tensor([[2.0, 2, 2, 2, 4, 4, 4]])
    heaped = torch.tensor([[2.0, 2, 2, 2, 12, 0, 0]])
    assert torch.allclose(
        router.balance_loss(p_KNC, spread, None), router.balance_loss(p_KNC, heaped, None)
    )
    busy = torch.tensor([[8.0, 0, 0, 0, 4, 4, 4]])
    assert not torch.allclose(
        router.balance_loss(p_KNC, spread, None), router.balance_loss(p_KNC, busy, None)
    )


def test_a_token_of_null_choices_alone_reaches_no_expert() -> None:
    router = _router("adamoe", router_settings={"null": 2})
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0, 0, 4:] = 5.0
    x_KND = torch.zeros(1, 2, WIDTH)
    x_KND[0, 0, 0] = 1.0
    x_KND[0, 1, 0] = -1.0
    routing = router(x_KND, RoutingContext())
    assert (routing.indices_KNS[0, 0] == -1).all()
    assert (routing.indices_KNS[0, 1] >= 0).all()
    assert float(reaches_none(routing).mean()) == 0.5
    assert torch.allclose(routing.gates_KNS.sum(-1), torch.tensor([[0.0, 1.0]]))


def test_a_cheap_expert_counts_less_in_the_balance_loss() -> None:
    router = _router("moe++", router_settings={"share": 0.25}).eval()
    even_KNC = torch.full((1, 6, 8), 1 / 8)
    real, cheap = torch.zeros(1, 8), torch.zeros(1, 8)
    real[0, 0], cheap[0, 7] = 6, 6
    of_real = router.balance_loss(even_KNC, real, None)
    assert torch.allclose(router.balance_loss(even_KNC, cheap, None), 0.25 * of_real)


def test_beside_a_zero_expert_the_other_choice_alone_makes_the_output() -> None:
    config = _config("moe++", router_settings={"zero": 1, "copy": 1, "constant": 1})
    layer = moe_layer(config, 1, 0)
    layer.initialize([torch.Generator().manual_seed(0)])
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[0, 0, [0, 4]] = 5.0  # expert 0 and the zero expert
        layer.router.weight[0, 1, [4, 5]] = 5.0  # zero and copy
    x_KND = torch.zeros(1, 2, WIDTH)
    x_KND[0, 0, 0] = x_KND[0, 1, 1] = 1.0
    y_KND, routing = layer(x_KND, x_KND, RoutingContext())
    assert sorted(routing.indices_KNS[0].max(-1).values.tolist()) == [-1, 0]
    assert torch.allclose(y_KND[0, 0], run_expert(layer, 0, 0, x_KND[0, 0]), atol=1e-6)
    assert torch.allclose(y_KND[0, 1], x_KND[0, 1], atol=1e-6)


def test_constant_experts_begin_as_large_as_the_states_they_replace() -> None:
    config = ModelConfig(width=64, experts=4, router="moe++")
    router = router_class("moe++")(config, 2, 1)
    router.initialize([torch.Generator().manual_seed(k) for k in range(2)])
    assert (router.vectors.square().mean(-1).sqrt() - 1).abs().max() < 0.3
    assert router.weight.std() < 0.03
    assert not torch.equal(router.vectors[0], router.vectors[1])


def test_cosine_gates_learn_their_temperature_and_the_balance_loss_keeps_its_own() -> None:
    settings = {"narrow_width": 4, "temperature": 0.3}
    router = _router("x-moe", balance_coefficient=1.0, router_settings=settings).eval()
    with torch.no_grad():
        router.vectors.normal_(generator=torch.Generator().manual_seed(1))
    x_KND = _states()
    warm = router(x_KND, RoutingContext())
    with torch.no_grad():
        router.temperature.fill_(0.05)
    cold = router(x_KND, RoutingContext())
    assert (cold.gates_KNS.amax(-1) > warm.gates_KNS.amax(-1)).all()
    assert torch.equal(cold.losses["balance"], warm.losses["balance"])
    narrow_NP = torch.nn.functional.normalize(x_KND[0] @ router.projection[0], dim=-1)
    cosines_NE = narrow_NP @ torch.nn.functional.normalize(router.vectors[0], dim=-1).T
    f_E = warm.counts_KE[0] / warm.counts_KE.sum()
    expected = 4 * (f_E * (cosines_NE / 0.3).softmax(-1).mean(0)).sum()
    assert torch.allclose(warm.losses["balance"][0], expected)


def test_stable_balance_is_that_of_the_paper_with_a_weight_of_its_own() -> None:
    losses = {}
    for weight in (0.3, 0.6):
        router = _router("stable", experts_per_token=1, router_settings={"balance": weight})
        router = _livelier(router).eval()
        ids_KN = torch.arange(32).unsqueeze(0)
        losses[weight] = router(_states(tokens=32), RoutingContext(ids_KN)).losses["balance"][0]
    scores_NE = _states(tokens=32)[0] @ router.weight[0]
    expected = torch.tensor(0.0)
    for expert in range(4):
        taken_N = scores_NE.argmax(-1) == expert
        overload = (taken_N.sum() - 8) / 8
        expected = expected + overload * scores_NE[taken_N, expert].sigmoid().sum()
    assert torch.allclose(losses[0.3], 0.3 * expected / 32, atol=1e-6)
    assert torch.allclose(losses[0.6], 2 * losses[0.3])


def test_the_penalty_of_unequal_experts_grows_with_their_width() -> None:
    settings = {"widths": [4, 8, 12, 16], "penalty": 1.0}
    router = _router("hmoe", experts_per_token=1, router_settings=settings).eval()
    penalties = []
    for expert in range(4):
        with torch.no_grad():
            router.weight.zero_()
            router.weight[0, 0, expert] = 100.0
        x_KND = torch.zeros(1, 6, WIDTH)
        x_KND[..., 0] = 1.0
        penalties.append(router(x_KND, RoutingContext()).losses["penalty"].item())
    assert penalties == pytest.approx([4 * width / 10 for width in (4, 8, 12, 16)])


def test_the_penalty_of_equal_experts_is_the_balance_loss_of_assignments_per_token() -> None:
    settings = {"widths": [8, 8, 8, 8], "penalty": 0.1}
    router = _livelier(_router("hmoe", experts_per_token=2, router_settings=settings)).eval()
    x_KND = _states()
    routing = router(x_KND, RoutingContext())
    p_KNE = (x_KND @ router.weight).softmax(-1)
    balance_K = router.balance_loss(p_KNE, routing.counts_KE, None)
    assert torch.allclose(routing.losses["penalty"], 0.1 * 2 * balance_K)


# numbers of experts that vary


def test_top_p_takes_the_shortest_list_that_exceeds_the_mass() -> None:
    router = _router("top-p", router_settings={"mass": 0.6, "entropy_coefficient": 1.0})
    p_NE = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.3, 0.35, 0.25, 0.1], [0.25, 0.25, 0.25, 0.25]])
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0, :3] = p_NE.log()
    routing = router(torch.eye(WIDTH)[None, :3], RoutingContext())
    assert (routing.indices_KNS >= 0).sum(-1).tolist() == [[1, 2, 3]]
    assert routing.indices_KNS[0, 1, :2].tolist() == [1, 0]
    assert torch.allclose(routing.gates_KNS.sum(-1), torch.tensor([[0.7, 0.65, 0.75]]))
    entropy = -(p_NE * p_NE.log()).sum(-1).mean()
    assert torch.allclose(routing.losses["entropy"][0], entropy)


@pytest.mark.parametrize(("mass", "number"), [(0.0, 1), (1.0, 4)])
def test_top_p_takes_one_expert_at_least_and_all_at_most(mass: float, number: int) -> None:
    router = _livelier(_router("top-p", router_settings={"mass": mass}))
    routing = router(_states(), RoutingContext())
    assert ((routing.indices_KNS >= 0).sum(-1) == number).all()


@pytest.mark.parametrize("experts", [3, 5, 8])
def test_selectors_weigh_all_experts_at_first_and_one_each_when_their_bits_are_sure(
    experts: int,
) -> None:
    router = _router("dselect-k", experts=experts, experts_per_token=2)
    x_KND = _states()
    soft = router(x_KND, RoutingContext())
    assert (soft.counts_KE == 40).all()
    with torch.no_grad():
        router.bits.mul_(1e5)
    sure = router(x_KND, RoutingContext())
    assert ((sure.indices_KNS >= 0).sum(-1) <= 2).all()
    for routing in (soft, sure):
        assert torch.allclose(routing.gates_KNS.sum(-1), torch.ones(1, 40), atol=1e-5)
    assert sure.losses["entropy"] < 1e-6 < soft.losses["entropy"]
    naive = REFERENCES["dselect-k"](router, 0, x_KND[0], [], [])
    chosen = [{e for e in row if e >= 0} for row in sure.indices_KNS[0].tolist()]
    assert chosen == [set(choice.gates) for choice in naive]


def test_a_soft_bit_meets_its_ends_without_a_corner() -> None:
    t = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    step = smooth_step(t)
    assert step.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    (slope,) = torch.autograd.grad(step.sum(), t)
    assert slope.tolist() == [0.0, 0.0, 1.5, 0.0, 0.0]


def test_remoe_steers_the_sparsity_of_all_layers_to_k_experts_per_token() -> None:
    config = _config("remoe", experts_per_token=1, router_settings={"coefficient": 1e-3})
    routers = [router_class("remoe")(config, 2, layer) for layer in range(2)]
    for router in routers:
        router.join(routers)
        router.initialize([torch.Generator().manual_seed(k) for k in range(2)])
    with torch.no_grad():
        for router, idle in zip(routers, (1.0, -1.0), strict=True):
            router.weight.zero_()
            router.weight[0, 0] = 1.0  # proxy 0: all experts at layer 0, none at layer 1
            router.weight[0, 0] *= idle
            router.weight[1, 0] = torch.tensor([idle, -1.0, -1.0, -1.0])  # proxy 1: half an expert
    x_KND = torch.zeros(2, 10, WIDTH)
    x_KND[..., 0] = 1.0
    for router in routers:
        router.begin_step()
        router(x_KND, RoutingContext())
    for router in routers:
        router.end_step()
    for router in routers:
        assert torch.allclose(router.coefficient_K, torch.tensor([1.2e-3, 1e-3 / 1.2]))


def test_remoe_finds_the_weight_of_its_loss_that_gives_k_experts_per_token() -> None:
    config = _config("remoe", experts=8, experts_per_token=2, router_settings={"coefficient": 1e-3})
    router = router_class("remoe")(config, 1, 0)
    router.initialize([torch.Generator().manual_seed(0)])
    x_KND, wanted_KNE = (
        _states(tokens=100),
        torch.rand(1, 100, 8, generator=torch.Generator().manual_seed(1)),
    )
    x_KND[..., 0] = 2.0  # a state that all share, for a score below 0 to be possible
    reached = []
    for _ in range(300):
        router.begin_step()
        routing = router(x_KND, RoutingContext())
        miss = (torch.relu(x_KND @ router.weight) - wanted_KNE).square().mean()
        (gradient,) = torch.autograd.grad(routing.losses["l1"].sum() + miss, router.weight)
        with torch.no_grad():
            router.weight -= 0.1 * gradient
        router.end_step()
        reached.append(float(routing.counts_KE.sum()) / 100)
    assert max(reached) > 4
    assert sum(reached[-100:]) / 100 == pytest.approx(2.0, abs=0.5)


def test_a_token_without_any_expert_comes_out_as_zero_and_is_told() -> None:
    layer = moe_layer(_config("remoe"), 1, 0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(0.1)
        layer.router.weight.fill_(-1.0)
    x_KND = torch.ones(1, 5, WIDTH)
    y_KND, routing = layer(x_KND, x_KND, RoutingContext())
    assert not y_KND.any()
    assert bool(reaches_none(routing).all())
    assert not gate_entropies(routing).any()


# state from step to step


def test_stable_routing_stays_as_it_was_once_the_stage_is_over() -> None:
    router = _livelier(_router("stable", cohort=2))
    context = RoutingContext(torch.randint(32, (2, 40), generator=torch.Generator().manual_seed(1)))
    router.begin_step(0.05)
    routing = router(_states(2), context)
    assert routing.losses.keys() == {"balance", "imitation"}
    router.begin_step(0.1)
    frozen = router(_states(2, seed=5), context)
    assert not frozen.losses
    with torch.no_grad():
        router.embedding.normal_(generator=torch.Generator().manual_seed(9))
        router.weight.normal_(generator=torch.Generator().manual_seed(9))
    router.begin_step(0.5)
    later = router(_states(2, seed=6), context)
    assert torch.equal(frozen.indices_KNS, later.indices_KNS)
    for k in range(2):  # a token id's experts are always the same
        seen: dict[int, list[int]] = {}
        for token, experts in zip(
            context.ids_KN[k].tolist(), later.indices_KNS[k].tolist(), strict=True
        ):
            assert seen.setdefault(token, experts) == experts


def test_the_imitation_loss_is_the_cross_entropy_of_the_chosen_experts() -> None:
    router = _livelier(_router("stable", experts_per_token=1))
    ids_KN = torch.arange(32).unsqueeze(0)
    routing = router(_states(tokens=32), RoutingContext(ids_KN))
    logits_NE = router.embedding[0] @ router.vectors[0]
    expected = torch.nn.functional.cross_entropy(logits_NE, routing.indices_KNS[0, :, 0])
    assert torch.allclose(routing.losses["imitation"][0], expected, atol=1e-5)


def test_a_model_tells_its_routers_how_far_the_training_is() -> None:
    model = Transformer(_config("stable"))
    model.begin_step(0.05)
    assert not any(bool(router.frozen_K.any()) for router in model.routers())
    model.begin_step(0.6)
    assert all(bool(router.frozen_K.all()) for router in model.routers())
    other = Transformer(_config("stable"), (9,))
    other.load_proxy_state(model.proxy_state())
    ids_KBT = torch.arange(24).view(1, 2, 12)
    assert torch.equal(model.eval().logits(ids_KBT), other.eval().logits(ids_KBT))


def test_the_layers_of_rmoe_share_a_gru_and_learn_from_those_above() -> None:
    model = Transformer(_config("rmoe", router_settings={"state_width": 4}))
    first, second = model.routers()
    owned = [name for name, _ in model.named_parameters() if "hidden_weight" in name]
    assert owned == ["blocks.0.feed_forward.router.hidden_weight"]
    x_KND = _states()
    below = first(x_KND, RoutingContext())
    above = second(x_KND, RoutingContext(below=below))
    above.gates_KNS.square().sum().backward()
    assert first.projection.grad.abs().sum() > 0
    assert first.hidden_weight.grad.abs().sum() > 0


def test_a_higher_layer_of_rmoe_alone_says_what_it_lacks() -> None:
    router = _router("rmoe", layer=1)
    with pytest.raises(TrainingError, match="no first layer"):
        router(_states(), RoutingContext())


@pytest.mark.parametrize("name", ["hash", "stable"])
def test_routers_by_token_id_need_the_ids(name: str) -> None:
    with pytest.raises(TrainingError, match="token ids"):
        _router(name)(_states(), RoutingContext())


def test_hashing_uses_all_experts_about_equally_and_differs_by_layer_and_seed() -> None:
    def table(layer: int, seed: int) -> torch.Tensor:
        config = dataclasses.replace(
            _config("hash"), vocab_size=4000, router_settings={"seed": seed}
        )
        return router_class("hash")(config, 1, layer).table_VS

    counts = torch.bincount(table(0, 0).flatten(), minlength=4)
    assert (counts / 2000 - 1).abs().max() < 0.08
    assert torch.equal(table(0, 0), table(0, 0))
    for other in (table(1, 0), table(0, 1)):
        assert (other == table(0, 0)).float().mean() < 0.4


def test_expert_choice_fills_every_expert_equally_with_real_tokens() -> None:
    router = _livelier(_router("expert-choice", router_settings={"ablation": True}))
    mask_KN = torch.arange(40).unsqueeze(0) < 30
    routing = router(_states(), RoutingContext(mask_KN=mask_KN))
    assert routing.counts_KE.tolist() == [[15.0] * 4]
    assert (routing.indices_KNS[0, 30:] == -1).all()


# the contract's small parts


def test_entropy_and_dropped_tokens_of_each_row() -> None:
    indices_KNS = torch.tensor([[[0, 1], [2, -1], [-1, -1], [0, 1]]])
    gates_KNS = torch.tensor([[[0.2, 0.2], [0.7, 0.0], [0.0, 0.0], [0.3, 0.1]]])
    routing = Routing(indices_KNS, gates_KNS, torch.zeros(1, 3))
    last = math.log(4) - 0.75 * math.log(3)
    assert torch.allclose(gate_entropies(routing), torch.tensor([[math.log(2), 0.0, 0.0, last]]))
    assert reaches_none(routing).tolist() == [[0, 0, 1, 0]]
    halves = row_mask(routing, torch.tensor([[True, False]]))
    assert halves is not None
    assert halves.tolist() == [[True, True, False, False]]


def test_compact_slots_hold_what_was_chosen() -> None:
    chosen_KNE = torch.tensor([[[True, False, True], [False, False, False], [False, True, False]]])
    indices_KNS, gates_KNS = compact(chosen_KNE, torch.arange(9.0).view(1, 3, 3))
    assert indices_KNS.tolist() == [[[0, 2], [-1, -1], [1, -1]]]
    assert gates_KNS.tolist() == [[[0.0, 2.0], [0.0, 0.0], [7.0, 0.0]]]


# settings and sizes


@pytest.mark.parametrize(
    ("router", "settings", "where", "message"),
    [
        ("top-p", {"masses": 0.5}, "router_settings.masses", "mass, entropy_coefficient"),
        ("softmax", {"mass": 0.5}, "router_settings.mass", "It has: none"),
        ("top-p", {"mass": 1.5}, "router_settings.mass", "between 0 and 1"),
        ("top-p", {"mass": "much"}, "router_settings.mass", "must be a number"),
        ("top-p", {"mass": float("nan")}, "router_settings.mass", "must be a number"),
        ("hash", {"seed": 0.5}, "router_settings.seed", "whole number"),
        ("hash", {"seed": True}, "router_settings.seed", "whole number"),
        ("loss-free", {"score": "tanh"}, "router_settings.score", "sigmoid or softmax"),
        ("hmoe", {"widths": [4, 4]}, "router_settings.widths", "4 numbers"),
        ("hmoe", {"widths": [4, 4, 4, "8"]}, "router_settings.widths", "list of whole numbers"),
        ("mh-moe", {"heads": 3}, "router_settings.heads", "divisor of the width 8"),
        ("moe++", {"zero": 0, "copy": 0, "constant": 0}, "router_settings.zero", "cheap"),
        ("expert-choice", {"ablation": 1}, "router_settings.ablation", "true or false"),
        ("stable", {"stage": -1}, "router_settings.stage", "between 0 and 1"),
        ("stable", {"balance": -1}, "router_settings.balance", "at least 0"),
        ("dselect-k", {"smooth_width": 0}, "router_settings.smooth_width", "above 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    router: str, settings: dict, where: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        _config(router, router_settings=settings)
    assert caught.value.where == where


def test_an_unknown_router_is_refused_when_the_study_is_read() -> None:
    with pytest.raises(StudyError, match="top-p") as caught:
        _config("top-q")
    assert caught.value.where == "router"


def test_whole_numbers_and_lists_of_a_study_file_are_taken_as_they_are_meant() -> None:
    assert _config("top-p", router_settings={"mass": 1}).settings.mass == 1.0
    assert _config("loss-free", router_settings={"rate": "1e-3"}).settings.rate == 1e-3
    settings = _config("hmoe", router_settings={"widths": [4, 8, 8, 12]}).settings
    assert settings.expert_widths(_config("hmoe")) == (4, 8, 8, 12)


def test_default_widths_go_from_a_half_to_one_and_a_half_and_keep_the_mean() -> None:
    for experts in (2, 3, 4, 5, 8, 16):
        config = _config("hmoe", experts=experts, expert_width=10)
        widths = config.settings.expert_widths(config)
        assert len(widths) == experts
        assert sum(widths) == 10 * experts
        assert (min(widths), max(widths)) == (5, 15)


def test_active_weights_follow_what_a_token_reaches() -> None:
    expert = 3 * WIDTH * 8
    plain = _config("softmax").active_params()
    # each of two layers: k·E/(E + null) experts, and null columns in the router
    adamoe = _config("adamoe", router_settings={"null": 4})
    assert adamoe.active_params() == plain + 2 * (4 * WIDTH - expert)
    assert _config("hash").active_params() == plain - 2 * 4 * WIDTH
    assert _config("hmoe").active_params() == plain
    heads = _config("mh-moe")
    assert heads.active_params() == plain + 2 * 2 * WIDTH * WIDTH
    assert heads.total_params() < heads.as_dense().total_params() * 4
    low = _config("autonomy", router_settings={"low_width": 2})
    reached = 4 * WIDTH * 2 + 2 * 8 * (2 + 2 * WIDTH)
    assert low.active_params() == plain + 2 * (reached - 4 * WIDTH - 2 * expert)


def test_finer_experts_weigh_and_cost_the_same() -> None:
    config = _config("deepseek", shared_experts=1)
    fine = config.split_experts(4)
    assert (fine.experts, fine.experts_per_token, fine.expert_width) == (16, 8, 2)
    routers = 2 * WIDTH * (16 - 4)
    assert fine.total_params() == config.total_params() + routers
    assert fine.active_params() == config.active_params() + routers
    with pytest.raises(StudyError, match="does not split"):
        config.split_experts(3)


@pytest.mark.parametrize(
    "router", sorted(set(ROUTERS) - {"autonomy", "hmoe", "mh-moe", "expert-choice"})
)
def test_a_dense_model_is_upcycled_into_any_router_over_plain_experts(router: str) -> None:
    config = _config(router)
    dense = config.as_dense()
    seed_state = Transformer(dense, (3,)).proxy_state()
    samples = {"d": np.arange(24).reshape(2, 12)}
    _, receipt = upcycle_states(
        Method("sparse"), DenseModels(seed_state, {}, dense), config, 0, samples
    )
    assert receipt.preserves_function == config.settings.unit_gates(config)
    assert receipt.logit_difference is not None
    assert not receipt.preserves_function or receipt.logit_difference < 1e-4


@pytest.mark.parametrize("router", ["autonomy", "hmoe", "mh-moe"])
def test_layers_of_other_experts_are_not_upcycled_into(router: str) -> None:
    config = _config(router)
    with pytest.raises(StudyError, match="not of the shape of a dense layer"):
        check_shapes(config.as_dense(), config)


def test_a_dense_model_has_no_router_of_any_kind() -> None:
    config = _config("hmoe", router_settings={"widths": [4, 8, 8, 12]}).as_dense()
    model = Transformer(config)
    assert not model.routers()
    there = sum(t.numel() for n, t in model.proxy_state().items() if n != "embedding")
    assert config.total_params() == config.active_params() == there
