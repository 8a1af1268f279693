"""The multi-head layer (2411.16205).

Shapes: K proxies, N tokens, D width, H heads, W = D/H width of a sub-token, E experts, F expert
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.moe import MoE, run_cohort
from mixopt.models.routers.base import Router, Routing, RoutingContext, draw_normal
from mixopt.models.routers.mh_moe import MultiHeadSettings, split


class MultiHeadMoE(MoE):
    """The state is mixed, cut into H sub-tokens that go to experts of their width, and mixed again.

    Parameters `head` and `merge` (K, D, D), `gate_up` (K, E, W, 2F), `down` (K, E, F, W). A token
    costs as much as one of a plain layer with the same F and k, and the two mixings.
    """

    fp32 = ("head",)  # the router sees its product

    def add_experts(self) -> None:
        """See the class."""
        config = self.config
        assert isinstance(config.settings, MultiHeadSettings)
        self.heads, hidden = config.settings.heads, config.expert_width
        width, shape = config.width // self.heads, (self.cohort, config.experts)
        self.head = nn.Parameter(torch.empty(self.cohort, config.width, config.width))
        self.merge = nn.Parameter(torch.empty(self.cohort, config.width, config.width))
        self.gate_up = nn.Parameter(torch.empty(*shape, width, 2 * hidden))
        self.down = nn.Parameter(torch.empty(*shape, hidden, width))

    def initialize_experts(
        self, generators: Sequence[torch.Generator], into_std: float, onto_std: float
    ) -> None:
        """Draw them so that activations are as large as a plain layer's."""
        draw_normal(self.head, generators, into_std)
        draw_normal(self.gate_up, generators, self.gate_up.shape[2] ** -0.5)
        draw_normal(self.down, generators, onto_std)
        draw_normal(self.merge, generators, into_std)

    def route(
        self, router: Router, x_KND: Tensor, router_x_KND: Tensor, context: RoutingContext
    ) -> tuple[Tensor, Routing]:
        """What the sub-tokens' experts add, (K, N, D), and the routing of the sub-tokens."""
        mixed_KND = torch.bmm(router_x_KND, self.head)
        y_KND, routing = super().route(router, mixed_KND.to(x_KND.dtype), mixed_KND, context)
        return torch.bmm(y_KND, self.merge.to(y_KND.dtype)), routing

    def run_experts(self, x_KND: Tensor, routing: Routing) -> Tensor:
        """Σ over each sub-token's experts of gate · FFN, back in one piece, (K, N, D)."""
        gates_KNS, indices_KNS = routing.gates_KNS, routing.indices_KNS
        sub_KNW = split(x_KND, self.heads)
        return run_cohort(sub_KNW, gates_KNS, indices_KNS, self.gate_up, self.down).view_as(x_KND)
