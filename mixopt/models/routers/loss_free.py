"""Balance without a loss (2408.15664): a bias that moves the choice, not the gates.

Shapes: K proxies, N tokens, D width, E experts, S = k experts per token, B sequences, T tokens of
each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext, probabilities
from mixopt.models.routers.settings import RouterSettings, require
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.routers.top_k import normalized


@dataclass(frozen=True)
class LossFreeSettings(RouterSettings):
    """Balance by a bias that only the choice sees (2408.15664).

    Attributes:
        rate: how far the bias moves at each optimizer step, γ.
        score: `sigmoid` of each logit, as in the paper, or `softmax` of all.
        sequence_coefficient: weight of a balance loss within each sequence, against extremes
            (2412.19437, where it is 1e-4); 0 leaves it away.
    """

    rate: float = 1e-3
    score: str = "sigmoid"
    sequence_coefficient: float = 0.0

    def __post_init__(self) -> None:
        require(self.rate >= 0, "rate", "at least 0", self.rate)
        require(
            self.score in ("sigmoid", "softmax"), "score", "sigmoid or softmax", repr(self.score)
        )


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
        """See the class; there is no auxiliary loss but that of sequences, if asked for."""
        logits_KNE = self.logits(x_KND)
        sigmoid = self.settings.score == "sigmoid"
        scores_KNE = torch.sigmoid(logits_KNE) if sigmoid else probabilities(logits_KNE)
        with torch.no_grad():
            biased_KNE = scores_KNE + self.bias_KE.unsqueeze(1)
            indices_KNS = biased_KNE.topk(self.config.experts_per_token, -1).indices
            counts_KE = self.count(indices_KNS, context.mask_KN)
        gates_KNS = scores_KNE.gather(-1, indices_KNS)
        if self.settings.unit_gates(self.config):
            gates_KNS = normalized(gates_KNS)
        losses: dict[str, Tensor] = {}
        if self.settings.sequence_coefficient:
            loss_K = self._sequence_loss(scores_KNE, context)
            losses["sequence"] = self.settings.sequence_coefficient * loss_K
        return Routing(indices_KNS, gates_KNS, counts_KE, losses)

    def _sequence_loss(self, scores_KNE: Tensor, context: RoutingContext) -> Tensor:
        """Mean over sequences of Σ f_i P_i, f and P being of one sequence, (K,) (2412.19437).

        f counts the k largest scores without the bias: the loss is about what the router wants of
        a sequence, whatever the bias makes of it (equation 18).
        """
        k = self.config.experts_per_token
        length, experts = context.length or scores_KNE.shape[1], self.config.experts
        real_KBT1 = torch.ones_like(scores_KNE[..., :1]).unflatten(1, (-1, length))
        if context.mask_KN is not None:
            real_KBT1 = context.mask_KN.unflatten(1, (-1, length)).unsqueeze(-1).float()
        tokens_KB1 = real_KBT1.sum(2).clamp_min(1.0)
        wanted_KNS = scores_KNE.detach().topk(k, -1).indices
        wanted_KNE = torch.zeros_like(scores_KNE).scatter(-1, wanted_KNS, 1.0)
        wanted_KBTE = wanted_KNE.unflatten(1, (-1, length))
        shares_KBTE = normalized(scores_KNE).unflatten(1, (-1, length))
        f_KBE = experts / k * (wanted_KBTE * real_KBT1).sum(2) / tokens_KB1
        means_KBE = (shares_KBTE * real_KBT1).sum(2) / tokens_KB1
        there_KB = real_KBT1.amax((2, 3))
        losses_KB = (f_KBE * means_KBE).sum(-1) * there_KB
        mean_K: Tensor = losses_KB.sum(1) / there_KB.sum(1).clamp_min(1.0)
        return mean_K

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the bias by the counts of the step."""
        counts_KE = self.step_counts_KE
        behind_KE = counts_KE.mean(-1, keepdim=True) - counts_KE
        self.bias_KE += self.settings.rate * torch.sign(behind_KE)
        self.bias_KE -= self.bias_KE.mean(-1, keepdim=True)
