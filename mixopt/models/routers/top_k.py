"""What most routers share: logits in, the k most probable experts of their softmax out.

Shapes: K proxies, N tokens, E choices, S = k experts per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mixopt.models.routers.base import Router, Routing, RoutingContext, probabilities, z_loss


class TopKRouter(Router):
    """A router whose `route` ends in `choose(logits)`.

    With k = 1 a gate is never divided by the sum: 1 is a constant, and the router would get no
    gradient.

    Attributes:
        has_z_loss: whether the logits are kept small by the z-loss.
        capturable: True; a subclass that looks at values sets it False.
    """

    has_z_loss: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    def choose(self, logits_KNE: Tensor, context: RoutingContext) -> Routing:
        """The k most probable of p = softmax(logits), gates p or p divided by their sum."""
        probabilities_KNE = probabilities(logits_KNE)
        gates_KNS, indices_KNS = probabilities_KNE.topk(self.config.experts_per_token, -1)
        if self.settings.unit_gates(self.config):
            gates_KNS = normalized(gates_KNS)
        with torch.no_grad():
            counts_KE = self.count(indices_KNS, context.mask_KN)
        losses = dict(self.balance(probabilities_KNE, counts_KE, context.mask_KN))
        if self.has_z_loss:
            losses["z"] = self.config.z_coefficient * z_loss(logits_KNE, context.mask_KN)
        return Routing(indices_KNS, gates_KNS, counts_KE, losses)

    def balance(
        self, probabilities_KNE: Tensor, counts_KE: Tensor, mask_KN: Tensor | None
    ) -> Mapping[str, Tensor]:
        """The balance loss (K,) times its coefficient, under its name."""
        balance_K = self.balance_loss(probabilities_KNE, counts_KE, mask_KN)
        return {"balance": self.config.balance_coefficient * balance_K}


def normalized(gates_KNS: Tensor) -> Tensor:
    """Gates divided by their sum; 0 where all are 0."""
    return gates_KNS / gates_KNS.sum(-1, keepdim=True).clamp_min(1e-20)
