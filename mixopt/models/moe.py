"""The feed-forward layer: a router and its SwiGLU experts, or one dense SwiGLU.

Shapes: K proxies, N tokens, M = K·N, D width, E experts, F expert width, S slots per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.core.registry import resolve
from mixopt.models import grouped
from mixopt.models.config import ModelConfig
from mixopt.models.experts import plan, run_experts
from mixopt.models.fusion import fused
from mixopt.models.routers.base import Router, Routing, RoutingContext, draw_normal, router_class


def moe_layer(config: ModelConfig, cohort: int, layer: int) -> MoE:
    """The feed-forward layer of this shape: the router may ask for a layer of its own.

    Raises:
        StudyError: there is no such router or layer.
    """
    if config.dense:
        return MoE(config, cohort, layer)
    return resolve("layer", router_class(config.router).layer_class, {}, MoE)(config, cohort, layer)


class MoE(nn.Module):
    """Σ over a token's experts of gate · FFN, plus the shared experts if there are any.

    Parameters `gate_up` (K, E, D, 2F), `down` (K, E, F, D), and for shared experts, fused into one
    of width F' = F · shared_experts, `shared_gate_up` (K, D, 2F') and `shared_down` (K, F', D).

    Attributes:
        fp32: names of its parameters that are multiplied in fp32; the others are cast to the
            dtype of the products before they are used.
    """

    fp32: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__()
        self.config, self.cohort = config, cohort
        self.add_experts()
        self.router: Router | None = None
        if not config.dense:
            self.router = router_class(config.router)(config, cohort, layer)
        if config.shared_experts:
            shared = config.expert_width * config.shared_experts
            self.shared_gate_up = nn.Parameter(torch.empty(cohort, config.width, 2 * shared))
            self.shared_down = nn.Parameter(torch.empty(cohort, shared, config.width))

    def add_experts(self) -> None:
        """Make the parameters of the routed experts; a layer with others overrides it."""
        shape, hidden = (self.cohort, self.config.experts), self.config.expert_width
        self.gate_up = nn.Parameter(torch.empty(*shape, self.config.width, 2 * hidden))
        self.down = nn.Parameter(torch.empty(*shape, hidden, self.config.width))

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
        y_KND, routing = self.route(self.router, x_KND, router_x_KND, context)
        if routing.extra_KND is not None:
            y_KND = y_KND + routing.extra_KND.to(dtype)
        return self._add_shared(y_KND, x_KND), routing

    @torch.no_grad()
    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the parameters of proxy k from `generators[k]` (on the CPU)."""
        config = self.config
        into_std = config.width**-0.5
        # outputs added to the stream shrink with depth so that its variance does not grow
        onto_std = config.expert_width**-0.5 * (2 * config.layers) ** -0.5
        self.initialize_experts(generators, into_std, onto_std)
        if self.router is not None:
            self.router.initialize(generators)
        if config.shared_experts:
            draw_normal(self.shared_gate_up, generators, into_std)
            draw_normal(self.shared_down, generators, onto_std)

    def initialize_experts(
        self, generators: Sequence[torch.Generator], into_std: float, onto_std: float
    ) -> None:
        """Draw the experts' parameters: those that read the stream, and those that write to it."""
        draw_normal(self.gate_up, generators, into_std)
        draw_normal(self.down, generators, onto_std)

    def route(
        self, router: Router, x_KND: Tensor, router_x_KND: Tensor, context: RoutingContext
    ) -> tuple[Tensor, Routing]:
        """What the routed experts add, (K, N, D), and the routing; arguments as of `forward`."""
        routing: Routing = router(router_x_KND, context)
        return self.run_experts(x_KND, routing), routing

    def run_experts(self, x_KND: Tensor, routing: Routing) -> Tensor:
        """Σ over a token's experts of gate · FFN, (K, N, D)."""
        return run_cohort(x_KND, routing.gates_KNS, routing.indices_KNS, self.gate_up, self.down)

    def _add_shared(self, y_KND: Tensor, x_KND: Tensor) -> Tensor:
        if not self.config.shared_experts:
            return y_KND
        dtype = x_KND.dtype
        return y_KND + swiglu(x_KND, self.shared_gate_up.to(dtype), self.shared_down.to(dtype))


def run_cohort(
    x_KND: Tensor,
    gates_KNS: Tensor,
    indices_KNS: Tensor,
    gate_up_KEDF: Tensor,
    down_KEFD: Tensor,
) -> Tensor:
    """`run_experts` for all proxies, (K, N, D): weights (K, E, D, 2F) and (K, E, F, D)."""
    if grouped.serves(x_KND, gate_up_KEDF, down_KEFD):
        return grouped.run_cohort(x_KND, gates_KNS, indices_KNS, gate_up_KEDF, down_KEFD)
    y_MD = run_experts(
        x_KND.flatten(0, 1),
        gates_KNS.flatten(0, 1),
        gate_up_KEDF.flatten(0, 1).to(x_KND.dtype),
        down_KEFD.flatten(0, 1).to(x_KND.dtype),
        plan(indices_KNS, down_KEFD.shape[1]),
    )
    return y_MD.view(x_KND.shape)


@fused
def swiglu(x_KND: Tensor, gate_up_KDF: Tensor, down_KFD: Tensor) -> Tensor:
    """W_down(silu(W_gate x) ⊙ W_up x), gate and up side by side in `gate_up_KDF` (K, D, 2F)."""
    gate_KNF, up_KNF = torch.bmm(x_KND, gate_up_KDF).chunk(2, -1)
    return torch.bmm(F.silu(gate_KNF) * up_KNF, down_KFD)
