"""Softmax top-k routing with the global-batch balance loss and the z-loss.

Shapes: K proxies, N tokens, D width, E experts, S = k experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal, score
from mixopt.models.routers.top_k import TopKRouter


class SoftmaxRouter(TopKRouter):
    """p = softmax(x W); the k most probable experts, gates p or p divided by their sum."""

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        self.weight = nn.Parameter(torch.empty(cohort, self.input_width, self.choices))

    @property
    def input_width(self) -> int:
        """Width of the states that are routed."""
        return self.config.width

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights from N(0, 0.02²)."""
        draw_normal(self.weight, generators)

    def logits(self, x_KND: Tensor) -> Tensor:
        """The product x W in fp32, (K, N, choices)."""
        return score(x_KND, self.weight)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """Top-k of the softmax; see the class."""
        return self.choose(self.logits(x_KND), context)
