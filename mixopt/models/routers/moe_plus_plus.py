"""MoE++ (2410.07348): zero, copy and constant experts for tokens that need no computation.

Shapes: K proxies, N tokens, D width, E experts, C choices (experts, zero, copy, constant in this
order), J constant experts, S = k choices per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.router_settings import CheapExpertsSettings
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.routers.top_k import normalized


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
