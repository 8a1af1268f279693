"""Top-p routing (2403.07652): as many experts as a token's probability mass needs.

Shapes: K proxies, N tokens, D width, E experts, S = the largest number that a token needs,
or E on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.models.routers.base import (
    Routing,
    RoutingContext,
    mean_over_tokens,
    most_slots,
    probabilities,
)
from mixopt.models.routers.settings import PlainGates, require
from mixopt.models.routers.softmax import SoftmaxRouter


@dataclass(frozen=True)
class TopPSettings(PlainGates):
    """As many experts as the token's probability mass needs (2403.07652).

    Attributes:
        mass: probability that the chosen experts must exceed together, p.
        entropy_coefficient: weight of the probabilities' entropy, which keeps the number small.
    """

    mass: float = 0.4
    entropy_coefficient: float = 1e-4

    def __post_init__(self) -> None:
        require(0 <= self.mass <= 1, "mass", "between 0 and 1", self.mass)


class TopPRouter(SoftmaxRouter):
    """The shortest list of most probable experts whose mass exceeds p; gates are probabilities.

    Beside the balance loss, the entropy of the probabilities is kept small: without it the router
    spreads them, and a token takes ever more experts.
    """

    settings_class = TopPSettings
    settings: TopPSettings

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class."""
        probabilities_KNE = probabilities(self.logits(x_KND))
        sorted_KNE, order_KNE = probabilities_KNE.sort(dim=-1, descending=True, stable=True)
        with torch.no_grad():
            before_KNE = sorted_KNE.cumsum(-1) - sorted_KNE
            used_KNE = before_KNE <= self.settings.mass
            used_KNE[..., 0] = True
            used_KNS = used_KNE[..., : most_slots(used_KNE)]
            slots = used_KNS.shape[-1]
            indices_KNS = torch.where(used_KNS, order_KNE[..., :slots], -1)
            counts_KE = self.count(indices_KNS, context.mask_KN)
        gates_KNS = torch.where(used_KNS, sorted_KNE[..., :slots], 0.0)
        return Routing(
            indices_KNS,
            gates_KNS,
            counts_KE,
            {
                **self.balance(probabilities_KNE, counts_KE, context.mask_KN),
                "entropy": self._entropy(probabilities_KNE, context.mask_KN),
            },
        )

    def _entropy(self, probabilities_KNE: Tensor, mask_KN: Tensor | None) -> Tensor:
        entropies_KN1 = torch.special.entr(probabilities_KNE).sum(-1, keepdim=True)
        mean_K = mean_over_tokens(entropies_KN1, mask_KN).squeeze(-1)
        return self.settings.entropy_coefficient * mean_K
