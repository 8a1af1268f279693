"""Every router of the registry passes the public suite."""

from dataclasses import dataclass

import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.routers import DEFAULT, ROUTERS
from mixopt.models.routers.base import Router, Routing, RoutingContext, router_class
from mixopt.models.routers.settings import RouterSettings, Shape, settings_class
from mixopt.testing.naive_routers import REFERENCES
from mixopt.testing.routers import RouterConformance


class TestSoftmax(RouterConformance):
    router = "softmax"


class TestSoftmaxWithPlainGatesByItsPath(RouterConformance):
    router = "mixopt.models.routers.softmax:SoftmaxRouter"
    settings = {"renormalize": False, "balance": "micro"}  # noqa: RUF012


class TestSwitch(RouterConformance):
    router = "switch"


class TestDeepSeek(RouterConformance):
    router = "deepseek"


class TestLossFree(RouterConformance):
    router = "loss-free"
    settings = {"router_settings": {"rate": 0.05}}  # noqa: RUF012


class TestLossFreeWithSoftmax(RouterConformance):
    router = "loss-free"
    settings = {  # noqa: RUF012
        "router_settings": {"rate": 0.05, "score": "softmax", "sequence_coefficient": 0.1}
    }


class TestTopP(RouterConformance):
    router = "top-p"


class TestAdaMoE(RouterConformance):
    router = "adamoe"


class TestAdaMoEWithPlainGates(RouterConformance):
    router = "adamoe"
    settings = {"renormalize": False, "router_settings": {"null": 1}}  # noqa: RUF012


class TestMoEPlusPlus(RouterConformance):
    router = "moe++"


class TestMoEPlusPlusWithoutConstants(RouterConformance):
    router = "moe++"
    settings = {"router_settings": {"constant": 0, "copy": 2}}  # noqa: RUF012


class TestReMoE(RouterConformance):
    router = "remoe"
    settings = {"router_settings": {"coefficient": 0.1}}  # noqa: RUF012


class TestDSelectK(RouterConformance):
    router = "dselect-k"
    settings = {"router_settings": {"smooth_width": 2.0}}  # noqa: RUF012


class TestXMoE(RouterConformance):
    router = "x-moe"
    settings = {"router_settings": {"narrow_width": 4}}  # noqa: RUF012


class TestHash(RouterConformance):
    router = "hash"
    settings = {"router_settings": {"seed": 3}}  # noqa: RUF012


class TestStable(RouterConformance):
    router = "stable"


class TestStableFromTheFirstStepFrozen(RouterConformance):
    router = "stable"
    settings = {"router_settings": {"stage": 0.2, "embedding_width": 5}}  # noqa: RUF012

    def layers(self, config: ModelConfig) -> list:
        layers = super().layers(config)
        for layer in layers:
            layer.router.begin_step(0.5)
        return layers

    def test_trained_parameters_get_gradients_through_the_layers(self) -> None:
        layers = self.layers(self.config(experts=4, experts_per_token=2))
        x_KND, context = self.tokens()
        y_KND, routing = layers[0](x_KND, x_KND, context)
        assert not routing.losses
        y_KND.sum().backward()
        assert layers[0].router.weight.grad.abs().sum() > 0
        assert layers[0].router.embedding.grad is None


class TestHyper(RouterConformance):
    router = "hyper"
    # few hidden units may all be 0 in a proxy, and then all its logits are
    settings = {"router_settings": {"embedding_width": 6, "hidden_width": 32}}  # noqa: RUF012


class TestRMoE(RouterConformance):
    router = "rmoe"
    settings = {"router_settings": {"state_width": 6}}  # noqa: RUF012


class TestAutonomy(RouterConformance):
    router = "autonomy"


class TestHMoE(RouterConformance):
    router = "hmoe"


class TestMultiHead(RouterConformance):
    router = "mh-moe"


class TestMultiHeadOfFour(RouterConformance):
    router = "mh-moe"
    settings = {"router_settings": {"heads": 4}}  # noqa: RUF012


class TestExpertChoice(RouterConformance):
    router = "expert-choice"
    settings = {"router_settings": {"ablation": True}}  # noqa: RUF012
    causal = False

    def test_it_is_refused_for_a_language_model(self) -> None:
        with pytest.raises(StudyError, match="leaks the future"):
            ModelConfig(router="expert-choice")

    def test_it_does_look_ahead(self) -> None:
        router = self.build(self.config(experts=4, experts_per_token=1))
        with torch.no_grad():
            router.weight.normal_(generator=torch.Generator().manual_seed(0))
        x_KND, context = self.tokens()
        changed_KND = x_KND.clone()
        changed_KND[:, 12:] *= -3
        first, second = router(x_KND, context), router(changed_KND, context)
        assert not torch.equal(first.indices_KNS[:, :12], second.indices_KNS[:, :12])


@dataclass(frozen=True)
class NoMatrix(RouterSettings):
    """A router without weights."""

    def router_weights(self, config: Shape) -> float:
        return 0


class OwnRouter(Router):
    """A user's router without a reference: the first k experts, with the mean state as gate."""

    settings_class = NoMatrix

    def initialize(self, generators: object) -> None:
        pass

    def route(self, x_KND: torch.Tensor, context: RoutingContext) -> object:
        k = self.config.experts_per_token
        indices_KNS = torch.arange(k).expand(*x_KND.shape[:2], k)
        gates_KNS = x_KND.float().mean(-1, keepdim=True).sigmoid().expand(indices_KNS.shape)
        return Routing(indices_KNS, gates_KNS, self.count(indices_KNS, context.mask_KN))


class TestOwn(RouterConformance):
    router = f"{__name__}:OwnRouter"


def test_every_router_is_tested_and_has_a_reference() -> None:
    tested = {value.router for value in globals().values() if _is_suite(value)}
    assert set(ROUTERS) == set(REFERENCES)
    assert set(ROUTERS) <= tested


def test_the_default_router_has_no_settings_of_its_own() -> None:
    assert settings_class(DEFAULT) is router_class(DEFAULT).settings_class


def _is_suite(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, RouterConformance)
