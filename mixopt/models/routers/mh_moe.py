"""Multi-head MoE (2411.16205): a token's sub-tokens are routed apart.

Shapes: K proxies, N tokens, D width, H heads, W = D/H width of a sub-token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.softmax import SoftmaxRouter


@dataclass(frozen=True)
class MultiHeadSettings(RouterSettings):
    """A token's state cut into sub-tokens that are routed apart (2411.16205).

    Attributes:
        heads: sub-tokens of a token.
    """

    plain_experts: ClassVar[bool] = False
    heads: int = 2

    def check(self, config: Shape) -> None:
        """The width splits into the heads."""
        fits = self.heads >= 1 and config.width % self.heads == 0
        require(fits, "heads", f"a divisor of the width {config.width}", self.heads)

    def router_weights(self, config: Shape) -> float:
        """The router of sub-tokens, and the matrices before and after the heads."""
        return config.width // self.heads * config.experts + 2 * config.width * config.width

    def reached_router_weights(self, config: Shape) -> float:
        """Once per sub-token."""
        return config.width * config.experts + 2 * config.width * config.width

    def expert_weights(self, config: Shape) -> int:
        """Experts of sub-tokens are as many times narrower at their ends."""
        return super().expert_weights(config) // self.heads


class MultiHeadRouter(SoftmaxRouter):
    """Softmax top-k of every sub-token: the routing has N·H rows.

    The layer, `mixopt.models.layers.mh_moe`, mixes the state before it is cut and after.
    """

    settings_class = MultiHeadSettings
    layer_class = "mixopt.models.layers.mh_moe:MultiHeadMoE"
    settings: MultiHeadSettings

    @property
    def input_width(self) -> int:
        """Width of a sub-token."""
        return self.config.width // self.settings.heads

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """The routing of the sub-tokens of these (mixed) states."""
        mask_KN = context.mask_KN
        if mask_KN is not None:
            mask_KN = mask_KN.repeat_interleave(self.settings.heads, 1)
        return super().route(split(x_KND, self.settings.heads), replace(context, mask_KN=mask_KN))


def split(x_KND: Tensor, heads: int) -> Tensor:
    """Sub-tokens (K, N·H, W), those of a token one after the other."""
    cohort, tokens, width = x_KND.shape
    return x_KND.reshape(cohort, tokens * heads, width // heads)
