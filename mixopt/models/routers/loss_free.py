"""Balance without a loss (2408.15664): a bias that moves the choice, not the gates.

Shapes: K proxies, N tokens, D width, E experts, S = k experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.router_settings import LossFreeSettings
from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.routers.top_k import normalized


class LossFreeRouter(SoftmaxRouter):
    """Experts by top-k of s + b, gates from s alone; b is state and gets no gradient.

    After each optimizer step b grows by the rate where an expert had fewer tokens than the mean,
    and shrinks where it had more; its own mean is then taken off.
    """

    settings_class = LossFreeSettings
    settings: LossFreeSettings
    bias_KE: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        self.register_buffer("bias_KE", torch.zeros(cohort, config.experts))

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class; there is no auxiliary loss."""
        logits_KNE = self.logits(x_KND)
        sigmoid = self.settings.score == "sigmoid"
        scores_KNE = torch.sigmoid(logits_KNE) if sigmoid else torch.softmax(logits_KNE, -1)
        with torch.no_grad():
            biased_KNE = scores_KNE + self.bias_KE.unsqueeze(1)
            indices_KNS = biased_KNE.topk(self.config.experts_per_token, -1).indices
            counts_KE = self.count(indices_KNS, context.mask_KN)
        gates_KNS = scores_KNE.gather(-1, indices_KNS)
        if self.settings.unit_gates(self.config):
            gates_KNS = normalized(gates_KNS)
        return Routing(indices_KNS, gates_KNS, counts_KE)

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the bias by the counts of the step."""
        counts_KE = self.step_counts_KE
        behind_KE = counts_KE.mean(-1, keepdim=True) - counts_KE
        self.bias_KE += self.settings.rate * torch.sign(behind_KE)
        self.bias_KE -= self.bias_KE.mean(-1, keepdim=True)
