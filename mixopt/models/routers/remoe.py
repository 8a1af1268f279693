"""ReMoE (2412.14711): gates by ReLU, sparse because their L1 norm is steered.

Shapes: K proxies, N tokens, D width, E experts, S = the largest number that a token reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import (
    Router,
    Routing,
    RoutingContext,
    compact,
    draw_normal,
    mean_over_tokens,
    score,
)
from mixopt.models.routers.settings import PlainGates, require


@dataclass(frozen=True)
class ReluSettings(PlainGates):
    """Every expert whose score is above 0 (2412.14711).

    Attributes:
        coefficient: weight of the gates' L1 norm at the start, λ₀.
        growth: factor by which the weight rises or falls after each optimizer step.
    """

    coefficient: float = 1e-8
    growth: float = 1.2

    def __post_init__(self) -> None:
        require(self.coefficient > 0, "coefficient", "above 0", self.coefficient)
        require(self.growth >= 1, "growth", "at least 1", self.growth)


class ReluRouter(Router):
    """Gates relu(x W); a token reaches the experts whose gate is above 0, maybe none.

    The loss is λ/layers · mean over tokens of Σ f_e g_e, f_e being E/k times the share of tokens
    that reach expert e. After each optimizer step λ grows by a factor if less than 1 - k/E of all
    layers' gates are 0, and shrinks by it if more are; each proxy has its own.
    """

    settings_class = ReluSettings
    capturable = True
    settings: ReluSettings
    coefficient_K: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        self.weight = nn.Parameter(torch.empty(cohort, config.width, config.experts))
        start_K = torch.full((cohort,), self.settings.coefficient)
        self.register_buffer("coefficient_K", start_K)
        self._peers: list[Router] = [self]

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights from N(0, 0.02²)."""
        draw_normal(self.weight, generators)

    def join(self, routers: Sequence[Router]) -> None:
        """The sparsity that is steered is that of all layers together."""
        self._peers = [router for router in routers if isinstance(router, ReluRouter)]

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        gates_KNE = torch.relu(score(x_KND, self.weight))
        indices_KNS, gates_KNS = compact(gates_KNE.detach() > 0, gates_KNE)
        with torch.no_grad():
            counts_KE = self.count(indices_KNS, context.mask_KN)
            rates_KE = self.rates(counts_KE, context.mask_KN, x_KND.shape[1])
            busy_KE = self.config.experts / self.config.experts_per_token * rates_KE
        means_KE = mean_over_tokens(gates_KNE, context.mask_KN)
        weight_K = self.coefficient_K.clone() / self.config.layers
        return Routing(
            indices_KNS, gates_KNS, counts_KE, {"l1": weight_K * (busy_KE * means_KE).sum(-1)}
        )

    @torch.no_grad()
    def end_step(self) -> None:
        """Steer λ towards the sparsity of k experts per token."""
        reached_K = torch.stack([peer.step_counts_KE.sum(-1) for peer in self._peers]).sum(0)
        tokens_K = torch.stack([peer.step_tokens_K for peer in self._peers]).sum(0)
        excess_K = reached_K - self.config.experts_per_token * tokens_K
        self.coefficient_K *= self.settings.growth ** torch.sign(excess_K)
