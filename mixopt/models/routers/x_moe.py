"""X-MoE (2204.09179): cosine to expert vectors in a narrow space, so that states do not collapse.

Shapes: K proxies, N tokens, D width, P narrow width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, draw_normal, probabilities
from mixopt.models.routers.settings import RouterSettings, Shape, require
from mixopt.models.routers.top_k import TopKRouter

COLDEST = 0.01  # as Tutel's cosine router has it; the authors' code goes to 1e-4


@dataclass(frozen=True)
class CosineSettings(RouterSettings):
    """Cosine to expert vectors in a narrow space (2204.09179).

    Attributes:
        narrow_width: width of that space.
        temperature: what the cosine is divided by, τ₀: for the gates it is learned from there on,
            in the balance loss it stays. The paper has 0.3 where gates are softmaxes, as here.
    """

    narrow_width: int = 16
    temperature: float = 0.3

    def __post_init__(self) -> None:
        require(self.narrow_width >= 1, "narrow_width", "at least 1", self.narrow_width)
        require(self.temperature > 0, "temperature", "above 0", self.temperature)

    def router_weights(self, config: Shape) -> float:
        """Projection, expert vectors, temperature."""
        return self.narrow_width * (config.width + config.experts) + 1


class CosineRouter(TopKRouter):
    """Logits cos(x W, e_i) / τ with a learned temperature τ; then softmax and top-k.

    The balance loss takes the probabilities at the temperature of the start, τ₀: it moves the
    cosines, and cannot be met by a colder or warmer softmax (equation 8).
    """

    settings_class = CosineSettings
    has_z_loss = False  # cosines are small
    settings: CosineSettings

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        narrow = self.settings.narrow_width
        self.projection = nn.Parameter(torch.empty(cohort, config.width, narrow))
        self.vectors = nn.Parameter(torch.empty(cohort, config.experts, narrow))
        self.temperature = nn.Parameter(torch.full((cohort, 1), self.settings.temperature))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw projection and vectors; lengths do not matter to a cosine."""
        draw_normal(self.projection, generators, self.config.width**-0.5)
        draw_normal(self.vectors, generators, self.settings.narrow_width**-0.5)
        nn.init.constant_(self.temperature, self.settings.temperature)

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        narrow_KNP = F.normalize(torch.bmm(x_KND.float(), self.projection.float()), dim=-1)
        cosines_KNE = torch.bmm(narrow_KNP, F.normalize(self.vectors.float(), dim=-1).mT)
        learned_K11 = self.temperature.clamp_min(COLDEST).unsqueeze(1)
        routing = self.choose(cosines_KNE / learned_K11, context)
        fixed_KNE = probabilities(cosines_KNE / self.settings.temperature)
        losses = self.balance(fixed_KNE, routing.counts_KE, context.mask_KN)
        return replace(routing, losses=losses)
