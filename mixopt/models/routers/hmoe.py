"""HMoE (2408.10681): experts of unequal width, wide ones made dearer.

Shapes: K proxies, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.router_settings import HeterogeneousSettings
from mixopt.models.routers.base import mean_over_tokens
from mixopt.models.routers.softmax import SoftmaxRouter


class HeterogeneousRouter(SoftmaxRouter):
    """Softmax top-k; instead of the balance loss the penalty E·Σ M_i P_i.

    M_i is the share of tokens that expert i gets times its width, widths relative to their mean; P
    as in the balance loss. The layer is `mixopt.models.layers.hmoe`.
    """

    settings_class = HeterogeneousSettings
    layer_class = "mixopt.models.layers.hmoe:HeterogeneousMoE"
    settings: HeterogeneousSettings
    widths_E: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        widths_E = torch.tensor(self.settings.expert_widths(config), dtype=torch.float32)
        self.register_buffer("widths_E", widths_E / widths_E.mean(), persistent=False)

    def balance(
        self, probabilities_KNE: Tensor, counts_KE: Tensor, mask_KN: Tensor | None
    ) -> Mapping[str, Tensor]:
        """The penalty."""
        rates_KE = self.rates(counts_KE, mask_KN, probabilities_KNE.shape[1])
        means_KE = mean_over_tokens(probabilities_KNE, mask_KN)
        penalty_K = self.choices * (rates_KE * self.widths_E * means_KE).sum(-1)
        return {"penalty": self.settings.penalty * penalty_K}
