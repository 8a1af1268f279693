"""MoE++ (2410.07348): zero, copy and constant experts for tokens that need no computation.

Shapes: K proxies, N tokens, D width, E experts, C choices (experts, zero, copy, constant in this
order), J constant experts, S = k choices per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.routers.top_k import normalized


@dataclass(frozen=True)
class CheapExpertsSettings(RouterSettings):
    """Zero, copy and constant experts beside the E that compute (2410.07348).

    Attributes:
        zero: experts that give 0.
        copy: experts that give the token's state back.
        constant: experts that mix the state with a vector that is learned.
        share: load of a cheap expert that counts like 1 of a computing one in the balance loss, τ;
            below 1 more tokens go the cheap way.
    """

    zero: int = 1
    copy: int = 1
    constant: int = 2
    share: float = 0.75

    def __post_init__(self) -> None:
        for name in ("zero", "copy", "constant"):
            value = getattr(self, name)
            require(value >= 0, name, "at least 0", value)
        require(self.cheap >= 1, "zero", "such that some expert is cheap", self.cheap)
        require(0 < self.share <= 1, "share", "above 0 and at most 1", self.share)

    @property
    def cheap(self) -> int:
        """How many experts cost next to nothing."""
        return self.zero + self.copy + self.constant

    def unit_gates(self, config: Shape) -> bool:
        """Not those of the experts that compute."""
        return False

    def router_weights(self, config: Shape) -> float:
        """The matrix, the constant experts, and the residual from the layer below.

        The first layer has no residual: the mean over layers.
        """
        choices = config.experts + self.cheap
        residual = choices * choices * (config.layers - 1) / config.layers
        return config.width * (choices + 3 * self.constant) + residual

    def reached_expert_weights(self, config: Shape) -> float:
        """While the load is as the balance loss wants it."""
        real = self.share * config.experts / (self.share * config.experts + self.cheap)
        return real * super().reached_expert_weights(config)


class CheapExpertsRouter(SoftmaxRouter):
    """Top-k of a softmax over experts that compute and experts that do not.

    A zero expert gives 0, a copy expert x, constant expert j α₁ x + α₂ v_j with
    α = softmax(x W_j). From the second layer on the layer below's logits are added, times a matrix
    (gating residual). The load of a cheap expert counts τ-fold in the balance loss.

    Gates are divided by the sum over the choices that are no zero experts, as in the authors' code:
    beside a zero expert, the other choice alone makes the output (section 3.1).
    """

    settings_class = CheapExpertsSettings
    settings: CheapExpertsSettings

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        self.residual: nn.Parameter | None = None
        if layer > 0:
            self.residual = nn.Parameter(torch.empty(cohort, self.choices, self.choices))
        self.mix: nn.Parameter | None = None
        if constant := self.settings.constant:
            self.mix = nn.Parameter(torch.empty(cohort, config.width, 2 * constant))
            self.vectors = nn.Parameter(torch.empty(cohort, constant, config.width))

    @property
    def null_experts(self) -> int:
        """All that do not compute."""
        return self.settings.cheap

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw all weights from N(0, 0.02²) but the constant experts' vectors, from N(0, 1).

        A vector stands in for a normed state and begins as large as one, as in the authors' code:
        after 250 steps of a width of 48, 2.464 nats per token against 2.479 with 0.02² (two seeds,
        0.009 apart at most).
        """
        super().initialize(generators)
        if self.residual is not None:
            draw_normal(self.residual, generators)
        if self.mix is not None:
            draw_normal(self.mix, generators)
            draw_normal(self.vectors, generators, 1.0)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        x_KND = x_KND.float()
        logits_KNC = self.logits(x_KND)
        below = context.below
        if self.residual is not None and below is not None and below.state is not None:
            logits_KNC = torch.baddbmm(logits_KNC, below.state, self.residual)
        routing = self.choose(logits_KNC, context)
        zeros = (self.config.experts, self.config.experts + self.settings.zero)
        zero_KNS = (routing.indices_KNS >= zeros[0]) & (routing.indices_KNS < zeros[1])
        gates_KNS = torch.where(zero_KNS, 0.0, routing.gates_KNS)
        if self.config.renormalize and self.config.experts_per_token > 1:
            gates_KNS = normalized(gates_KNS)
        real_KNS = routing.indices_KNS < self.config.experts
        return replace(
            routing,
            indices_KNS=torch.where(real_KNS, routing.indices_KNS, -1),
            gates_KNS=torch.where(real_KNS, gates_KNS, 0.0),
            counts_KE=routing.counts_KE[:, : self.config.experts],
            state=logits_KNC,
            extra_KND=self._cheap(x_KND, routing.indices_KNS, gates_KNS),
        )

    def shares(self, counts_KE: Tensor) -> Tensor:
        """Shares of the choices, those of cheap experts times τ."""
        shares_KC = super().shares(counts_KE)
        real_KE, cheap_KC = shares_KC.split([self.config.experts, self.null_experts], -1)
        return torch.cat([real_KE, self.settings.share * cheap_KC], -1)

    def _cheap(self, x_KND: Tensor, indices_KNS: Tensor, gates_KNS: Tensor) -> Tensor:
        """What the copy and constant experts give, times their gates."""
        weights_KNC = gates_KNS.new_zeros(*gates_KNS.shape[:2], self.choices)
        weights_KNC = weights_KNC.scatter(-1, indices_KNS, gates_KNS)
        settings = self.settings
        parts = [self.config.experts, settings.zero, settings.copy, settings.constant]
        _, _, copy_KNC, constant_KNJ = weights_KNC.split(parts, -1)
        of_x_KN: Tensor = copy_KNC.sum(-1)
        if self.mix is None:
            of_copies_KND: Tensor = x_KND * of_x_KN.unsqueeze(-1)
            return of_copies_KND
        mix_KNJ2 = torch.bmm(x_KND, self.mix).unflatten(-1, (-1, 2)).softmax(-1)
        parts_KNJ2 = constant_KNJ.unsqueeze(-1) * mix_KNJ2
        of_x_KN = of_x_KN + parts_KNJ2[..., 0].sum(-1)
        of_x_KND = x_KND * of_x_KN.unsqueeze(-1)
        return torch.baddbmm(of_x_KND, parts_KNJ2[..., 1], self.vectors)
