"""The fast MoE layer against a naive loop over tokens and their experts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.experts import plan, run_experts
from mixopt.models.moe import MoE
from mixopt.models.routers.base import RoutingContext


def naive_experts(
    x_MD: Tensor, gates_MS: Tensor, indices_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor
) -> Tensor:
    """One token and one expert at a time; autograd does the rest."""
    rows = []
    for m in range(len(x_MD)):
        y_D = torch.zeros_like(x_MD[m])
        for s in range(indices_MS.shape[1]):
            expert = int(indices_MS[m, s])
            if expert >= 0:
                gate_F, up_F = (x_MD[m] @ gate_up_GDF[expert]).chunk(2)
                y_D = y_D + gates_MS[m, s] * ((F.silu(gate_F) * up_F) @ down_GFD[expert])
        rows.append(y_D)
    return torch.stack(rows)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(
    ("cohort", "tokens", "experts", "slots", "width", "hidden"),
    [
        (1, 1, 1, 1, 4, 4),
        (1, 7, 4, 2, 8, 6),
        (2, 65, 4, 2, 8, 16),
        (3, 30, 5, 3, 6, 10),
        (2, 130, 2, 2, 8, 4),
        (1, 9, 16, 1, 4, 3),
    ],
)
def test_outputs_and_gradients_are_those_of_the_naive_loop(
    cohort: int, tokens: int, experts: int, slots: int, width: int, hidden: int, equal: bool
) -> None:
    random = torch.Generator().manual_seed(tokens)
    scores_KNE = torch.rand(cohort, tokens, experts, generator=random)
    indices_KNS = scores_KNE.topk(slots).indices
    empty_KNS = torch.rand(indices_KNS.shape, generator=random) < 0.2
    indices_KNS = indices_KNS.masked_fill(empty_KNS, -1)
    gates_MS = torch.rand(cohort * tokens, slots, generator=random)
    gates_MS = gates_MS.masked_fill(empty_KNS.flatten(0, 1), 0.0)
    values = [
        torch.randn(cohort * tokens, width, generator=random),
        gates_MS,
        torch.randn(cohort * experts, width, 2 * hidden, generator=random),
        torch.randn(cohort * experts, hidden, width, generator=random),
    ]
    towards_MD = torch.randn(cohort * tokens, width, generator=random)
    offset_K11 = torch.arange(cohort).view(-1, 1, 1) * experts
    flat_MS = torch.where(indices_KNS < 0, -1, indices_KNS + offset_K11).flatten(0, 1)

    fast = [value.clone().requires_grad_() for value in values]
    slow = [value.clone().requires_grad_() for value in values]
    routes = plan(indices_KNS, experts, equal)
    assert routes.equal is equal
    y_fast = run_experts(*fast, routes)
    y_slow = naive_experts(slow[0], slow[1], flat_MS, slow[2], slow[3])
    assert torch.allclose(y_fast, y_slow, atol=1e-4, rtol=1e-4)
    (y_fast * towards_MD).sum().backward()
    (y_slow * towards_MD).sum().backward()
    used_MS = flat_MS >= 0
    for place, (mine, naive) in enumerate(zip(fast, slow, strict=True)):
        naive_grad = torch.zeros_like(naive) if naive.grad is None else naive.grad
        mine_grad = mine.grad if place != 1 else torch.where(used_MS, mine.grad, 0.0)
        assert torch.allclose(mine_grad, naive_grad, atol=1e-3, rtol=1e-3), place


@pytest.mark.parametrize("equal", [False, True])
def test_an_expert_that_no_token_chose_gets_a_gradient_of_zero(equal: bool) -> None:
    indices_KNS = torch.zeros(1, 5, 1, dtype=torch.long)
    weights = [torch.randn(3, 4, 8, requires_grad=True), torch.randn(3, 4, 4, requires_grad=True)]
    run_experts(
        torch.randn(5, 4), torch.ones(5, 1), *weights, plan(indices_KNS, 3, equal)
    ).sum().backward()
    for weight in weights:
        assert weight.grad is not None
        assert weight.grad[0].abs().sum() > 0
        assert not weight.grad[1:].any()


def test_experts_of_very_unequal_loads_are_not_padded_to_the_largest() -> None:
    one_of_eight = torch.zeros(1, 100, 1, dtype=torch.long)
    routes = plan(one_of_eight, 8, equal=True)
    assert not routes.equal
    assert routes.rows == 128


def test_bf16_products_stay_close_to_fp32() -> None:
    random = torch.Generator().manual_seed(0)
    indices_KNS = torch.rand(1, 100, 4, generator=random).topk(2).indices
    values = [
        torch.randn(100, 16, generator=random),
        torch.full((100, 2), 0.5),
        torch.randn(4, 16, 64, generator=random) / 4,
        torch.randn(4, 32, 16, generator=random) / 6,
    ]
    routes = plan(indices_KNS, 4)
    full = run_experts(*values, routes)
    low = run_experts(
        values[0].bfloat16(), values[1], values[2].bfloat16(), values[3].bfloat16(), routes
    )
    assert low.dtype == torch.bfloat16
    assert (low.float() - full).abs().max() < 0.05 * full.abs().max()


def test_shared_experts_are_added_to_every_token() -> None:
    config = ModelConfig(width=8, heads=2, expert_width=8, shared_experts=2)
    layer = MoE(config, 1, 0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    x_KND = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(2))
    both, _ = layer(x_KND, x_KND, RoutingContext())
    gate_NF, up_NF = (x_KND[0] @ layer.shared_gate_up[0]).chunk(2, -1)
    shared_ND = (F.silu(gate_NF) * up_NF) @ layer.shared_down[0]
    with torch.no_grad():
        layer.shared_down.zero_()
    routed, _ = layer(x_KND, x_KND, RoutingContext())
    assert torch.allclose(both - routed, shared_ND.unsqueeze(0), atol=1e-3)
