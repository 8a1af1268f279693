"""HMoE (2408.10681): experts of unequal width, wide ones penalised.

Shapes: K proxies, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import mean_over_tokens
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.softmax import SoftmaxRouter


@dataclass(frozen=True)
class HeterogeneousSettings(RouterSettings):
    """Experts of unequal width (2408.10681).

    Attributes:
        widths: hidden width of each expert; empty spreads them evenly from a half to one and a
            half of `expert_width`, in steps of a half.
        penalty: weight of the loss on the use of wide experts; it stands in for the balance
            loss.
    """

    plain_experts: ClassVar[bool] = False
    widths: tuple[int, ...] = ()
    penalty: float = 0.1

    def __post_init__(self) -> None:
        require(all(w >= 1 for w in self.widths), "widths", "all at least 1", list(self.widths))

    def check(self, config: Shape) -> None:
        """One width an expert."""
        if self.widths:
            fits, wanted = len(self.widths) == config.experts, f"{config.experts} numbers"
            require(fits, "widths", wanted, list(self.widths))
        elif config.expert_width % 2:
            raise StudyError(
                f"{config.expert_width} has no half",
                where="expert_width",
                hint="Choose an even one, or say router_settings.widths",
            )

    def expert_widths(self, config: Shape) -> tuple[int, ...]:
        """The width of each expert."""
        if self.widths:
            return self.widths
        last = max(1, config.experts - 1)
        halves = [1 + round(2 * e / last) if config.experts > 1 else 2 for e in range(last + 1)]
        return tuple(config.expert_width // 2 * n for n in halves[: config.experts])

    def expert_weights(self, config: Shape) -> int:
        """All widths together."""
        return 3 * config.width * sum(self.expert_widths(config))

    def reached_expert_weights(self, config: Shape) -> float:
        """Of k experts of the mean width."""
        return config.experts_per_token * self.expert_weights(config) / config.experts


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
