"""Multi-head MoE (2411.16205): a token's sub-tokens are routed apart.

Shapes: K proxies, N tokens, D width, H heads, W = D/H width of a sub-token.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mixopt.models.router_settings import MultiHeadSettings
from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.softmax import SoftmaxRouter


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
