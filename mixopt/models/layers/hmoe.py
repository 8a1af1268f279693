"""The layer of experts of unequal width (2408.10681).

Shapes: K proxies, N tokens, D width, E experts, S slots, U units, F width of a unit, P units of the
widest expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.moe import MoE, run_cohort
from mixopt.models.routers.base import Routing, draw_normal
from mixopt.models.routers.hmoe import HeterogeneousSettings


class HeterogeneousMoE(MoE):
    """A SwiGLU is a sum over its hidden channels: a wide expert is several units of equal width.

    The unit is the greatest width that divides all; a token that chose an expert reaches all its
    units with the same gate. Parameters `gate_up` (K, U, D, 2F), `down` (K, U, F, D), the units of
    an expert one after the other.
    """

    units_EP: Tensor

    def add_experts(self) -> None:
        """See the class."""
        config = self.config
        assert isinstance(config.settings, HeterogeneousSettings)
        widths = config.settings.expert_widths(config)
        unit = math.gcd(*widths)
        self.units = [width // unit for width in widths]  # of each expert
        shape = (self.cohort, sum(self.units))
        self.gate_up = nn.Parameter(torch.empty(*shape, config.width, 2 * unit))
        self.down = nn.Parameter(torch.empty(*shape, unit, config.width))
        units_EP = torch.full((config.experts, max(self.units)), -1)
        first = 0
        for units_P, number in zip(units_EP, self.units, strict=True):
            units_P[:number] = torch.arange(first, first + number)
            first += number
        self.register_buffer("units_EP", units_EP, persistent=False)

    def initialize_experts(
        self, generators: Sequence[torch.Generator], into_std: float, onto_std: float
    ) -> None:
        """Draw each expert as a SwiGLU of its own width."""
        draw_normal(self.gate_up, generators, into_std)
        draw_normal(self.down, generators, onto_std * self.config.expert_width**0.5)
        unit = self.down.shape[2]
        widths_U = torch.tensor([n * unit for n in self.units for _ in range(n)])
        with torch.no_grad():
            self.down.mul_(widths_U.rsqrt().view(1, -1, 1, 1))

    def run_experts(self, x_KND: Tensor, routing: Routing) -> Tensor:
        """Σ over a token's experts of gate · FFN, (K, N, D)."""
        chosen_KNS1 = routing.indices_KNS.unsqueeze(-1)
        units_KNSP = self.units_EP[routing.indices_KNS.clamp_min(0)]
        units_KNSP = torch.where(chosen_KNS1 < 0, -1, units_KNSP)
        gates_KNSP = torch.where(units_KNSP < 0, 0.0, routing.gates_KNS.unsqueeze(-1))
        return run_cohort(
            x_KND, gates_KNSP.flatten(2), units_KNSP.flatten(2), self.gate_up, self.down
        )
