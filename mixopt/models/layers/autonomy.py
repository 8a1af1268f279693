"""The layer of autonomous experts (2501.13074).

Shapes: K proxies, D width, E experts, L width of the first activations, F expert width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.moe import MoE, run_cohort
from mixopt.models.routers.autonomy import AutonomyRouter, AutonomySettings
from mixopt.models.routers.base import Routing, draw_normal


class AutonomyMoE(MoE):
    """Expert i: W_down(silu(x A_i B_i) ⊙ x U_i), A_i being the router's.

    Parameters `gate` B (K, E, L, F), `up` U (K, E, D, F), `down` (K, E, F, D). A_i B_i is
    multiplied out once per call, and the chosen experts are SwiGLUs like any others: for many more
    tokens than D this costs little.
    """

    def add_experts(self) -> None:
        """See the class."""
        config = self.config
        assert isinstance(config.settings, AutonomySettings)
        shape = (self.cohort, config.experts)
        low, hidden = config.settings.activations(config), config.expert_width
        self.gate = nn.Parameter(torch.empty(*shape, low, hidden))
        self.up = nn.Parameter(torch.empty(*shape, config.width, hidden))
        self.down = nn.Parameter(torch.empty(*shape, hidden, config.width))

    def initialize_experts(
        self, generators: Sequence[torch.Generator], into_std: float, onto_std: float
    ) -> None:
        """Draw them so that activations are as large as a plain expert's."""
        draw_normal(self.gate, generators, self.gate.shape[2] ** -0.5)
        draw_normal(self.up, generators, into_std)
        draw_normal(self.down, generators, onto_std)

    def run_experts(self, x_KND: Tensor, routing: Routing) -> Tensor:
        """Σ over a token's experts of gate · FFN, (K, N, D)."""
        assert isinstance(self.router, AutonomyRouter)
        dtype = x_KND.dtype
        gate_KEDF = torch.matmul(self.router.weight.to(dtype), self.gate.to(dtype))
        gate_up_KEDF = torch.cat([gate_KEDF, self.up.to(dtype)], -1)
        gates_KNS, indices_KNS = routing.gates_KNS, routing.indices_KNS
        return run_cohort(x_KND, gates_KNS, indices_KNS, gate_up_KEDF, self.down)
