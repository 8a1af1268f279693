"""Softmax top-k routing with the global-batch balance loss and the z-loss.

Shapes: K proxies, N tokens, D width, E experts, S = k experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Router, Routing, RoutingContext, z_loss

INITIAL_STD = 0.02  # never 0: ties would send every token to the same experts


class SoftmaxRouter(Router):
    """p = softmax(x W); the k most probable experts, gates p or p divided by their sum.

    With k = 1 the gate is never divided: 1 is a constant, and the router would get no gradient.
    """

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        self.weight = nn.Parameter(torch.empty(cohort, config.width, config.experts))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights from N(0, 0.02²)."""
        with torch.no_grad():
            for weight_DE, generator in zip(self.weight, generators, strict=True):
                shape = weight_DE.shape
                weight_DE.copy_(torch.randn(shape, generator=generator) * INITIAL_STD)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """Top-k of the softmax; see the class."""
        config = self.config
        logits_KNE = torch.bmm(x_KND.float(), self.weight.float())
        probabilities_KNE = torch.softmax(logits_KNE, -1)
        gates_KNS, indices_KNS = probabilities_KNE.topk(config.experts_per_token, -1)
        if config.renormalize and config.experts_per_token > 1:
            gates_KNS = gates_KNS / gates_KNS.sum(-1, keepdim=True)
        with torch.no_grad():
            counts_KE = self.count(indices_KNS, context.mask_KN)
        balance_K = self.balance_loss(probabilities_KNE, counts_KE, context.mask_KN)
        z_K = z_loss(logits_KNE, context.mask_KN)
        losses = {
            "balance": config.balance_coefficient * balance_K,
            "z": config.z_coefficient * z_K,
        }
        return Routing(indices_KNS, gates_KNS, counts_KE, losses)
