"""What every router is: a token's state in, experts and gates out.

Shapes: K proxies of the cohort, N tokens of one proxy, D width, E experts, S slots per token
(the largest number of experts a token may reach; S = k for a top-k router).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mixopt.models.config import ModelConfig
from mixopt.registry import resolve

ROUTERS: Mapping[str, str] = {"softmax": "mixopt.models.routers.softmax:SoftmaxRouter"}


def router_class(name: str) -> type[Router]:
    """The router of that registry name, or of a user's `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `Router`.
    """
    return resolve("router", name, ROUTERS, Router)  # type: ignore[type-abstract]


@dataclass(frozen=True)
class RoutingContext:
    """What a router may look at besides the token's state.

    Attributes:
        ids_KN: token ids (hash routers).
        mask_KN: True where a token is real; None if all are. Padding takes no part in counts or
            losses.
        below: the routing of the nearest MoE layer below, None at the first (recurrent routers).
    """

    ids_KN: Tensor | None = None
    mask_KN: Tensor | None = None
    below: Routing | None = None


@dataclass(frozen=True)
class Routing:
    """Where the tokens of one layer go.

    Attributes:
        indices_KNS: experts of each token, int64 in [0, E); -1 is an empty slot. A token's experts
            are distinct.
        gates_KNS: their weights in the layer's output, fp32; 0 in an empty slot.
        counts_KE: real tokens assigned to each expert, fp32, no gradient.
        losses: auxiliary losses, each (K,), already times their coefficient; a step minimises
            their sum over layers beside the cross-entropy.
        state: what a router hands to the layer above (`RoutingContext.below`).
    """

    indices_KNS: Tensor
    gates_KNS: Tensor
    counts_KE: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    state: Tensor | None = None


class Router(nn.Module, ABC):
    """Base of all routers of one MoE layer, for a whole cohort.

    Parameters and persistent buffers carry the leading axis K; row k never sees row j's tokens.
    A router must be causal (a token's routing depends on no later token), deterministic, compute
    its logits in fp32 whatever the dtype of `x`, and pass `mixopt.testing.routers`.

    The step loop calls `begin_step` before the first micro-batch of an optimizer step and
    `end_step` after the optimizer moved; between them `step_counts_KE` gathers the assignments of
    every micro-batch, which makes the balance loss global (2501.11873). Evaluation (`eval()`)
    leaves every state alone.
    """

    step_counts_KE: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__()
        self.config, self.cohort, self.layer = config, cohort, layer
        zeros_KE = torch.zeros(cohort, config.experts)
        self.register_buffer("step_counts_KE", zeros_KE, persistent=False)

    @abstractmethod
    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """The routing of these tokens."""

    @abstractmethod
    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the parameters of proxy k from `generators[k]` (on the CPU)."""

    def forward(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """Same as `route`."""
        return self.route(x_KND, context)

    def begin_step(self) -> None:
        """Forget the assignments of the last optimizer step."""
        self.step_counts_KE.zero_()

    def end_step(self) -> None:
        """Update state that changes once per optimizer step, from `step_counts_KE`."""

    def count(self, indices_KNS: Tensor, mask_KN: Tensor | None) -> Tensor:
        """Real tokens assigned to each expert, (K, E) fp32; gathered over the step in training."""
        experts_E = torch.arange(self.config.experts, device=indices_KNS.device)
        chosen_KNE = (indices_KNS.unsqueeze(-1) == experts_E).any(2)
        if mask_KN is not None:
            chosen_KNE = chosen_KNE & mask_KN.unsqueeze(-1)
        counts_KE = chosen_KNE.sum(1).float()
        if self.training:
            self.step_counts_KE += counts_KE
        return counts_KE

    def balance_loss(
        self, probabilities_KNE: Tensor, counts_KE: Tensor, mask_KN: Tensor | None
    ) -> Tensor:
        """Switch balance loss E·Σ f_i P_i, (K,), at least about 1 (2101.03961, 2501.11873).

        f is each expert's share of all assignments so far in this optimizer step, not of this
        micro-batch alone; P is the mean router probability of this micro-batch.
        """
        gathered_KE = self.step_counts_KE.clone() if self.training else counts_KE
        shares_KE = gathered_KE / gathered_KE.sum(-1, keepdim=True).clamp_min(1.0)
        means_KE = mean_over_tokens(probabilities_KNE, mask_KN)
        return self.config.experts * (shares_KE * means_KE).sum(-1)


def mean_over_tokens(values_KNX: Tensor, mask_KN: Tensor | None) -> Tensor:
    """Mean over the real tokens, (K, X); 0 where a proxy has none."""
    if mask_KN is None:
        return values_KNX.mean(1)
    real_KN1 = mask_KN.unsqueeze(-1)
    total_KX = torch.where(real_KN1, values_KNX, 0.0).sum(1)
    return total_KX / real_KN1.sum(1).clamp_min(1)


def z_loss(logits_KNE: Tensor, mask_KN: Tensor | None) -> Tensor:
    """Mean squared log-partition of the router, (K,) (2202.08906)."""
    squares_KN1 = torch.logsumexp(logits_KNE, -1, keepdim=True).square()
    return mean_over_tokens(squares_KN1, mask_KN).squeeze(-1)
