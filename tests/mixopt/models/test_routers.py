import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, router_class
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.testing.routers import RouterConformance


class TestSoftmaxConformance(RouterConformance):
    router = "softmax"


class TestSoftmaxWithPlainGatesConformance(RouterConformance):
    router = "mixopt.models.routers.softmax:SoftmaxRouter"
    settings = {"renormalize": False}  # noqa: RUF012


def _route(x_KND: torch.Tensor, **settings: object) -> tuple[SoftmaxRouter, Routing]:
    config = ModelConfig(width=x_KND.shape[-1], heads=1, **settings)  # type: ignore[arg-type]
    router = SoftmaxRouter(config, len(x_KND), 0)
    router.initialize([torch.Generator().manual_seed(k) for k in range(len(x_KND))])
    return router, router(x_KND, RoutingContext())


def test_gates_sum_to_one_when_renormalized_and_to_less_when_not() -> None:
    x_KND = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(0))
    _, routing = _route(x_KND)
    assert torch.allclose(routing.gates_KNS.sum(-1), torch.ones(1, 10))
    _, plain = _route(x_KND, renormalize=False)
    assert (plain.gates_KNS.sum(-1) < 0.99).all()


def test_a_single_gate_is_never_renormalized_so_that_its_router_still_learns() -> None:
    x_KND = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(0))
    router, routing = _route(x_KND, experts_per_token=1, balance_coefficient=0.0)
    assert (routing.gates_KNS < 1).all()
    routing.gates_KNS.sum().backward()
    assert router.weight.grad is not None
    assert router.weight.grad.abs().sum() > 0


def test_the_balance_loss_is_one_when_balanced_and_the_number_of_experts_when_collapsed() -> None:
    router, _ = _route(torch.randn(1, 8, 8), experts_per_token=1)
    router.begin_step()
    even_KNE = torch.full((1, 8, 4), 0.25)
    assert torch.allclose(
        router.eval().balance_loss(even_KNE, torch.full((1, 4), 2.0), None), torch.ones(1)
    )
    one_KNE = torch.zeros(1, 8, 4)
    one_KNE[..., 2] = 1
    counts_KE = torch.tensor([[0.0, 0.0, 8.0, 0.0]])
    assert torch.allclose(router.balance_loss(one_KNE, counts_KE, None), torch.tensor([4.0]))


def test_the_balance_loss_counts_over_the_micro_batches_of_a_step() -> None:
    # Two micro-batches that use one expert each are balanced together: the second sees f = (½, ½).
    router, _ = _route(torch.randn(1, 4, 8), experts=2, experts_per_token=1)
    router.begin_step()
    x_KND = torch.zeros(1, 4, 8)
    x_KND[..., 0] = 1
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0, 0] = torch.tensor([5.0, -5.0])
    first = router(x_KND, RoutingContext()).losses["balance"] / router.config.balance_coefficient
    second = router(-x_KND, RoutingContext()).losses["balance"] / router.config.balance_coefficient
    assert torch.allclose(first, torch.tensor([2.0]), atol=1e-3)
    assert torch.allclose(second, torch.tensor([1.0]), atol=1e-3)


def test_the_balance_gradient_moves_probability_away_from_the_busy_expert() -> None:
    router, _ = _route(torch.randn(1, 64, 8), z_coefficient=0.0)
    probabilities_KNE = torch.full((1, 64, 4), 0.25, requires_grad=True)
    counts_KE = torch.tensor([[100.0, 20.0, 4.0, 4.0]])
    router.eval().balance_loss(probabilities_KNE, counts_KE, None).sum().backward()
    assert probabilities_KNE.grad is not None
    gradient_E = probabilities_KNE.grad[0, 0]
    assert gradient_E[0] > gradient_E[1] > gradient_E[2]


def test_an_unknown_router_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(StudyError, match="softmax"):
        router_class("sofmax")
