"""Autonomy of experts (2501.13074): the experts that react most to a token take it.

Shapes: K proxies, N tokens, D width, E experts, L width of an expert's first activations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.router_settings import AutonomySettings
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal
from mixopt.models.routers.top_k import TopKRouter


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
