"""HyperRouter (2312.07035): a frozen network makes the router's weights from a trained embedding.

Shapes: K proxies, D width, E experts, P embedding width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import INITIAL_STD, Routing, RoutingContext, draw_normal, score
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.top_k import TopKRouter


@dataclass(frozen=True)
class HyperSettings(RouterSettings):
    """Router weights made by a frozen network from a trained embedding (2312.07035).

    Attributes:
        embedding_width: width of the embedding.
        hidden_width: hidden width of the frozen network.
    """

    embedding_width: int = 64
    hidden_width: int = 64

    def __post_init__(self) -> None:
        for name in ("embedding_width", "hidden_width"):
            value = getattr(self, name)
            require(value >= 1, name, "at least 1", value)

    def router_weights(self, config: Shape) -> float:
        """Embedding and frozen network."""
        made = config.width * config.experts
        return self.embedding_width + self.hidden_width * (self.embedding_width + made)

    def reached_router_weights(self, config: Shape) -> float:
        """The matrix that is made: making it costs once per step, not per token."""
        return config.width * config.experts


class HyperRouter(TopKRouter):
    """Logits x W with W = relu(e A) B; e is trained, A and B stay as they were drawn."""

    settings_class = HyperSettings
    settings: HyperSettings
    frozen_in: Tensor
    frozen_out: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        narrow, hidden = self.settings.embedding_width, self.settings.hidden_width
        self.embedding = nn.Parameter(torch.empty(cohort, narrow))
        made = config.width * config.experts
        self.register_buffer("frozen_in", torch.zeros(cohort, narrow, hidden))
        self.register_buffer("frozen_out", torch.zeros(cohort, hidden, made))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw everything so that W is about N(0, 0.02²)."""
        draw_normal(self.embedding, generators, 1.0)
        draw_normal(self.frozen_in, generators, self.settings.embedding_width**-0.5)
        # half the hidden units are 0: E relu(z)² = ½
        draw_normal(
            self.frozen_out, generators, INITIAL_STD * (2 / self.settings.hidden_width) ** 0.5
        )

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        hidden_K1H = torch.relu(torch.bmm(self.embedding.unsqueeze(1), self.frozen_in))
        weight_KDE = torch.bmm(hidden_K1H, self.frozen_out).view(
            self.cohort, self.config.width, self.config.experts
        )
        return self.choose(score(x_KND, weight_KDE), context)
