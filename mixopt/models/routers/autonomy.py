"""Autonomy of experts (2501.13074): the experts that react most to a token take it.

Shapes: K proxies, N tokens, D width, E experts, L width of an expert's first activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.top_k import TopKRouter


@dataclass(frozen=True)
class AutonomySettings(RouterSettings):
    """Experts choose themselves by the norm of their own first activations (2501.13074).

    Attributes:
        low_width: width of these activations; 0 takes a third of the model's.
    """

    plain_experts: ClassVar[bool] = False
    low_width: int = 0

    def __post_init__(self) -> None:
        require(self.low_width >= 0, "low_width", "at least 0", self.low_width)

    def activations(self, config: Shape) -> int:
        """Width of an expert's first activations."""
        return self.low_width or max(1, config.width // 3)

    def router_weights(self, config: Shape) -> float:
        """Every expert's first matrix, which all tokens reach."""
        return config.experts * config.width * self.activations(config)

    def _after(self, config: Shape) -> int:
        return config.expert_width * (self.activations(config) + 2 * config.width)

    def expert_weights(self, config: Shape) -> int:
        """What is behind the first matrices."""
        return config.experts * self._after(config)

    def reached_expert_weights(self, config: Shape) -> float:
        """Of the chosen ones."""
        return config.experts_per_token * self._after(config)


class AutonomyRouter(TopKRouter):
    """Logits ‖x A_i‖, A_i (D, L) being the first half of expert i's factorised gate matrix.

    The layer is `mixopt.models.layers.autonomy`, which goes on from these matrices.
    """

    settings_class = AutonomySettings
    has_z_loss = False  # it would shrink the experts' activations
    layer_class = "mixopt.models.layers.autonomy:AutonomyMoE"
    settings: AutonomySettings

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        low = self.settings.activations(config)
        self.weight = nn.Parameter(torch.empty(cohort, config.experts, config.width, low))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the matrices as those of any expert."""
        draw_normal(self.weight, generators, self.config.width**-0.5)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        weight_KDA = self.weight.float().transpose(1, 2).flatten(2)
        activations_KNEL = torch.bmm(x_KND.float(), weight_KDA).unflatten(-1, (-1, self._low))
        # a state of zeros has a norm of slope 0, not of no slope
        norms_KNE = activations_KNEL.square().sum(-1).clamp_min(1e-12).sqrt()
        return self.choose(norms_KNE, context)

    @property
    def _low(self) -> int:
        return self.weight.shape[-1]
