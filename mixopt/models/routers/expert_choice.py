"""Expert choice (2202.09368): each expert takes the tokens that score highest. Not causal.

Shapes: K proxies, N tokens, E experts, S = the largest number of experts that take one token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.routers.base import Routing, RoutingContext, compact, probabilities
from mixopt.models.routers.settings import PlainGates, Shape
from mixopt.models.routers.softmax import SoftmaxRouter


@dataclass(frozen=True)
class ExpertChoiceSettings(PlainGates):
    """Experts choose tokens (2202.09368), which shows a token what comes after it.

    Attributes:
        ablation: must be true: losses of a model that reads ahead, and whose experts are filled
            batch by batch, compare with no other's.
    """

    ablation: bool = False

    def check(self, config: Shape) -> None:
        """Refuse it as a language model."""
        if not self.ablation:
            raise StudyError(
                "expert choice leaks the future: whether a token gets an expert depends on the "
                "scores of later tokens and of the other sequences of its batch, so that its "
                "losses compare with no other router's and no text can be generated",
                where="router",
                hint="Choose another router, or set router_settings.ablation to true for an "
                "experiment that allows for it",
            )


class ExpertChoiceRouter(SoftmaxRouter):
    """Each expert takes ⌈k·N/E⌉ of the N real tokens, by softmax over experts; gates are p.

    Balanced without a loss, but whether a token gets an expert depends on later tokens: it is for
    ablations only, and the settings must say so.
    """

    settings_class = ExpertChoiceSettings
    reads_whole_batch = True

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        probabilities_KNE = probabilities(self.logits(x_KND))
        with torch.no_grad():
            chosen_KNE = self._chosen(probabilities_KNE, context.mask_KN)
        indices_KNS, gates_KNS = compact(chosen_KNE, probabilities_KNE)
        with torch.no_grad():
            counts_KE = self.count(indices_KNS, context.mask_KN)
        return Routing(indices_KNS, gates_KNS, counts_KE)

    def _chosen(self, probabilities_KNE: Tensor, mask_KN: Tensor | None) -> Tensor:
        """Which experts take which tokens."""
        k, experts = self.config.experts_per_token, self.config.experts
        if mask_KN is None:
            mask_KN = torch.ones_like(probabilities_KNE[..., 0], dtype=torch.bool)
        real_KNE = mask_KN.unsqueeze(-1).expand_as(probabilities_KNE)
        scores_KNE = torch.where(real_KNE, probabilities_KNE, -1.0)
        order_KNE = scores_KNE.sort(dim=1, descending=True, stable=True).indices
        places_N1 = torch.arange(scores_KNE.shape[1], device=scores_KNE.device).unsqueeze(1)
        capacity_K11 = (k * mask_KN.sum(1) + experts - 1).div(experts, rounding_mode="floor")
        taken_KNE = (places_N1 < capacity_K11.view(-1, 1, 1)).expand_as(scores_KNE)
        return torch.zeros_like(real_KNE).scatter(1, order_KNE, taken_KNE) & real_KNE
