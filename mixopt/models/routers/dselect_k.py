"""DSelect-k (2106.03760): k selectors that each write an expert's number in soft bits.

Shapes: K proxies, N tokens, D width, k selectors, M bits, E experts, C = 2^M numbers, S = the
largest number of experts that a token reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
from mixopt.models.routers.settings import RouterSettings, Shape, require


@dataclass(frozen=True)
class SelectorSettings(RouterSettings):
    """Selectors that write an expert's number in soft bits (2106.03760).

    Attributes:
        smooth_width: distance between the scores at which a bit is surely 0 and surely 1, γ.
        entropy_coefficient: weight of the selectors' entropy, which makes the bits sure.
    """

    smooth_width: float = 1.0
    entropy_coefficient: float = 1e-2

    def __post_init__(self) -> None:
        require(self.smooth_width > 0, "smooth_width", "above 0", self.smooth_width)

    def unit_gates(self, config: Shape) -> bool:
        """Always, of one selector too."""
        return True

    def bits(self, config: Shape) -> int:
        """How many bits number the experts."""
        return (config.experts - 1).bit_length()

    def router_weights(self, config: Shape) -> float:
        """Of each selector, its bits and its share."""
        return config.width * config.experts_per_token * (self.bits(config) + 1)


class SelectorRouter(Router):
    """Gates Σ_i softmax(x W)_i · r_i, r_i being selector i's weights of the experts.

    r_i of number c is Π over its bits m of s_im where the bit is set, else 1 - s_im, with
    s = smooth_step(x A). A bit that is sure is exactly 0 or 1, so that experts drop out one by one
    and a token ends at k of them at most; at first it reaches all. Entropy of r is a loss.

    Numbers beyond E count for the experts from 0 on; the paper has a penalty against them instead.
    """

    settings_class = SelectorSettings
    settings: SelectorSettings
    capturable = True

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        k, bits = config.experts_per_token, self.settings.bits(config)
        self.bits = nn.Parameter(torch.empty(cohort, config.width, k * bits))
        self.weight = nn.Parameter(torch.empty(cohort, config.width, k))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights from N(0, 0.02²): every bit begins near a half."""
        draw_normal(self.bits, generators)
        draw_normal(self.weight, generators)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        r_KNkE = self._selections(x_KND)
        shares_KNk = score(x_KND, self.weight).softmax(-1)
        gates_KNE = (shares_KNk.unsqueeze(-1) * r_KNkE).sum(2)
        indices_KNS, gates_KNS = compact(gates_KNE.detach() > 0, gates_KNE)
        with torch.no_grad():
            counts_KE = self.count(indices_KNS, context.mask_KN)
        entropies_KN1 = torch.special.entr(r_KNkE.clamp_min(1e-9)).sum((2, 3)).unsqueeze(-1)
        entropy_K = mean_over_tokens(entropies_KN1, context.mask_KN).squeeze(-1)
        balance_K = self.balance_loss(gates_KNE, counts_KE, context.mask_KN)
        return Routing(
            indices_KNS,
            gates_KNS,
            counts_KE,
            {
                "balance": self.config.balance_coefficient * balance_K,
                "entropy": self.settings.entropy_coefficient * entropy_K,
            },
        )

    def _selections(self, x_KND: Tensor) -> Tensor:
        """Every selector's weights of the experts, which sum to 1, (K, N, k, E)."""
        k, experts = self.config.experts_per_token, self.config.experts
        z_KNkM = score(x_KND, self.bits).unflatten(-1, (k, self.settings.bits(self.config)))
        r_KNkC = torch.ones(*z_KNkM.shape[:-1], 1, device=z_KNkM.device)
        for s_KNk in smooth_step(z_KNkM / self.settings.smooth_width).unbind(-1):
            # not `prod`, whose gradient waits for the number of zeros
            set_KNkC = r_KNkC * s_KNk.unsqueeze(-1)
            r_KNkC = torch.cat([r_KNkC - set_KNkC, set_KNkC], -1)
        first_KNkE, beyond_KNkX = r_KNkC[..., :experts], r_KNkC[..., experts:]
        return first_KNkE + F.pad(beyond_KNkX, (0, experts - beyond_KNkX.shape[-1]))


def smooth_step(t: Tensor) -> Tensor:
    """0 up to t = -½, 1 from ½ on, and between them the cubic that meets both without a corner."""
    t = t.clamp(-0.5, 0.5)
    return 0.5 + t * (1.5 - 2 * t.square())
