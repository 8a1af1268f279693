"""The feed-forward layer: a router and its SwiGLU experts, or one dense SwiGLU.

Shapes: K proxies, N tokens, M = K·N, D width, E experts, F expert width, S slots per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.experts import plan, run_experts
from mixopt.models.routers.base import Router, Routing, RoutingContext, router_class


class MoE(nn.Module):
    """Σ over a token's experts of gate · FFN, plus the shared experts if there are any.

    Parameters `gate_up` (K, E, D, 2F), `down` (K, E, F, D), and for shared experts, fused into one
    of width F' = F · shared_experts, `shared_gate_up` (K, D, 2F') and `shared_down` (K, F', D).
    """

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__()
        width, hidden, experts = config.width, config.expert_width, config.experts
        self.config = config
        self.gate_up = nn.Parameter(torch.empty(cohort, experts, width, 2 * hidden))
        self.down = nn.Parameter(torch.empty(cohort, experts, hidden, width))
        self.router: Router | None = None
        if not config.dense:
            self.router = router_class(config.router)(config, cohort, layer)
        if config.shared_experts:
            shared = hidden * config.shared_experts
            self.shared_gate_up = nn.Parameter(torch.empty(cohort, width, 2 * shared))
            self.shared_down = nn.Parameter(torch.empty(cohort, shared, width))

    def forward(
        self, x_KND: Tensor, router_x_KND: Tensor, context: RoutingContext
    ) -> tuple[Tensor, Routing | None]:
        """The layer's output (K, N, D), and the routing (None if dense).

        Args:
            x_KND: normed input in the dtype of the products.
            router_x_KND: the same in fp32, for the router.
            context: what else the router may look at.
        """
        dtype = x_KND.dtype
        if self.router is None:
            gate_up, down = self.gate_up[:, 0].to(dtype), self.down[:, 0].to(dtype)
            return self._add_shared(swiglu(x_KND, gate_up, down), x_KND), None
        routing: Routing = self.router(router_x_KND, context)
        y_MD = run_experts(
            x_KND.flatten(0, 1),
            routing.gates_KNS.flatten(0, 1),
            self.gate_up.flatten(0, 1).to(dtype),
            self.down.flatten(0, 1).to(dtype),
            plan(routing.indices_KNS, self.config.experts),
        )
        return self._add_shared(y_MD.view(x_KND.shape), x_KND), routing

    def _add_shared(self, y_KND: Tensor, x_KND: Tensor) -> Tensor:
        if not self.config.shared_experts:
            return y_KND
        dtype = x_KND.dtype
        return y_KND + swiglu(x_KND, self.shared_gate_up.to(dtype), self.shared_down.to(dtype))


def swiglu(x_KND: Tensor, gate_up_KDF: Tensor, down_KFD: Tensor) -> Tensor:
    """W_down(silu(W_gate x) ⊙ W_up x), gate and up side by side in `gate_up_KDF` (K, D, 2F)."""
    gate_KNF, up_KNF = torch.bmm(x_KND, gate_up_KDF).chunk(2, -1)
    return torch.bmm(F.silu(gate_KNF) * up_KNF, down_KFD)
