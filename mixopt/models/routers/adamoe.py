"""AdaMoE (2406.13233): null experts among the choices let a token take fewer real ones.

Shapes: K proxies, N tokens, E experts, C = E + null choices, S = k choices per token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.routers.top_k import normalized


@dataclass(frozen=True)
class NullSettings(RouterSettings):
    """Experts that compute nothing beside the E that do (2406.13233).

    Attributes:
        null: how many there are. Of the k choices of a token k·E / (E + null) are real experts
            while the load is balanced.
    """

    null: int = 4

    def __post_init__(self) -> None:
        require(self.null >= 1, "null", "at least 1", self.null)

    def unit_gates(self, config: Shape) -> bool:
        """Not for a token whose choices are all null."""
        return False

    def router_weights(self, config: Shape) -> float:
        """A column for each null expert too."""
        return config.width * (config.experts + self.null)

    def reached_expert_weights(self, config: Shape) -> float:
        """While the load is balanced."""
        real = config.experts / (config.experts + self.null)
        return real * super().reached_expert_weights(config)


class AdaMoERouter(SoftmaxRouter):
    """Top-k of a softmax over real and null experts; a null choice is an empty slot.

    Gates are divided by the sum over the real choices alone. The balance loss sees the mean load of
    the null experts in the place of each one's own: which of them is taken does not matter.
    """

    settings_class = NullSettings
    settings: NullSettings

    @property
    def null_experts(self) -> int:
        """As the settings say."""
        return self.settings.null

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        routing = self.choose(self.logits(x_KND), context)
        experts = self.config.experts
        real_KNS = routing.indices_KNS < experts
        gates_KNS = torch.where(real_KNS, routing.gates_KNS, 0.0)
        if self.config.renormalize and self.config.experts_per_token > 1:
            gates_KNS = normalized(gates_KNS)
        indices_KNS = torch.where(real_KNS, routing.indices_KNS, -1)
        counts_KE = routing.counts_KE[:, :experts]
        return replace(routing, indices_KNS=indices_KNS, gates_KNS=gates_KNS, counts_KE=counts_KE)

    def shares(self, counts_KE: Tensor) -> Tensor:
        """Shares of the choices, those of the null experts averaged."""
        shares_KC = super().shares(counts_KE)
        real_KE, null_KJ = shares_KC.split([self.config.experts, self.null_experts], -1)
        return torch.cat([real_KE, null_KJ.mean(-1, keepdim=True).expand_as(null_KJ)], -1)
