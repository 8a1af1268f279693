"""RMoE (2408.06793): a GRU carries the routers' state from layer to layer.

Shapes: K proxies, N tokens, D width, P state width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mixopt.core.errors import TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Router, Routing, RoutingContext, draw_normal, score
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.top_k import TopKRouter


@dataclass(frozen=True)
class RecurrentSettings(RouterSettings):
    """A state that a GRU carries from layer to layer decides (2408.06793).

    Attributes:
        state_width: width of the state.
    """

    state_width: int = 64

    def __post_init__(self) -> None:
        require(self.state_width >= 1, "state_width", "at least 1", self.state_width)

    def router_weights(self, config: Shape) -> float:
        """Projection and reading of a layer, and its part of the GRU that the layers share."""
        gru = 6 * self.state_width * (self.state_width + 1)
        own = self.state_width * (config.width + config.experts)
        return own + gru / config.layers

    def reached_router_weights(self, config: Shape) -> float:
        """The shared GRU is run at every layer."""
        gru = 6 * self.state_width * (self.state_width + 1)
        return self.state_width * (config.width + config.experts) + gru


class RecurrentRouter(TopKRouter):
    """Logits h W with h = GRU(x P, h of the layer below); at the first layer h begins at 0.

    Every layer has its own projection P and reading W; the first one owns the GRU, which all use.
    The state is not detached: a layer's routing learns from those above it.
    """

    settings_class = RecurrentSettings
    reads_other_layers = True
    settings: RecurrentSettings
    hidden_bias: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        width = self.settings.state_width
        self.projection = nn.Parameter(torch.empty(cohort, config.width, width))
        self.weight = nn.Parameter(torch.empty(cohort, width, config.experts))
        self._first: tuple[RecurrentRouter, ...] = ()  # a tuple, not to be a module of this one
        if layer == 0:
            self._first = (self,)
            for name in ("input", "hidden"):
                weight = nn.Parameter(torch.empty(cohort, width, 3 * width))
                self.register_parameter(f"{name}_weight", weight)
                self.register_parameter(
                    f"{name}_bias", nn.Parameter(torch.empty(cohort, 3 * width))
                )

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights; the reading from N(0, 0.02²), biases begin at 0."""
        draw_normal(self.projection, generators, self.config.width**-0.5)
        draw_normal(self.weight, generators)
        if self.layer == 0:
            for name in ("input", "hidden"):
                std = self.settings.state_width**-0.5
                draw_normal(self.get_parameter(f"{name}_weight"), generators, std)
                nn.init.zeros_(self.get_parameter(f"{name}_bias"))

    def join(self, routers: Sequence[Router]) -> None:
        """The first layer's GRU serves all."""
        self._first = tuple(r for r in routers if isinstance(r, RecurrentRouter))[:1]

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class.

        Raises:
            TrainingError: this is a higher layer that was not joined to the first.
        """
        if not self._first:
            raise TrainingError("has no first layer to share a GRU with", where="router rmoe")
        projected_KNP = torch.bmm(x_KND.float(), self.projection.float())
        state_KNP = None if context.below is None else context.below.state
        state_KNP = self._first[0].cell(projected_KNP, state_KNP)
        routing = self.choose(score(state_KNP, self.weight), context)
        return replace(routing, state=state_KNP)

    def cell(self, x_KNP: Tensor, state_KNP: Tensor | None) -> Tensor:
        """The next state, (K, N, P), of a GRU as `torch.nn.GRUCell` computes it."""
        reset, update, new = _affine(x_KNP, self, "input").chunk(3, -1)
        if state_KNP is None:
            recurrent_KNG = self.hidden_bias.unsqueeze(1)
        else:
            recurrent_KNG = _affine(state_KNP, self, "hidden")
        of_reset, of_update, of_new = recurrent_KNG.chunk(3, -1)
        candidate_KNP = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        kept_KNP = torch.sigmoid(update + of_update)
        if state_KNP is None:
            return (1 - kept_KNP) * candidate_KNP
        return torch.lerp(candidate_KNP, state_KNP, kept_KNP)


def _affine(x_KNP: Tensor, router: nn.Module, name: str) -> Tensor:
    bias_K1G = getattr(router, f"{name}_bias").unsqueeze(1)
    # not get_parameter, which takes no tensor in a parameter's place (`mixopt.models.single`)
    return torch.baddbmm(bias_K1G, x_KNP, getattr(router, f"{name}_weight"))
