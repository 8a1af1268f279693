"""What every router is: a token's state in, experts and gates out.

Shapes: K proxies of the cohort, N tokens of one proxy, D width, E experts, S slots per token
(the largest number of experts a token may reach; S = k for a top-k router).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mixopt.core.part_settings import build_settings
from mixopt.core.registry import resolve
from mixopt.models.config import ModelConfig
from mixopt.models.fusion import fused
from mixopt.models.routers import ROUTERS
from mixopt.models.routers.settings import RouterSettings

INITIAL_STD = 0.02  # never 0: ties would send every token to the same experts


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
        length: tokens of a sequence, which lie one after the other; None if all are one.
    """

    ids_KN: Tensor | None = None
    mask_KN: Tensor | None = None
    below: Routing | None = None
    length: int | None = None


@dataclass(frozen=True)
class Routing:
    """Where the tokens of one layer go.

    A layer that cuts each token into H sub-tokens gives N·H rows instead of N: those of token n are
    rows n·H to n·H + H - 1.

    Attributes:
        indices_KNS: experts of each token, int64 in [0, E); -1 is an empty slot. A token's experts
            are distinct.
        gates_KNS: their weights in the layer's output, fp32; 0 in an empty slot.
        counts_KE: real tokens assigned to each expert, fp32, no gradient.
        losses: auxiliary losses, each (K,), already times their coefficient; a step minimises
            their sum over layers beside the cross-entropy.
        state: what a router hands to the layer above (`RoutingContext.below`).
        extra_KND: what the layer adds to its output besides, fp32: experts that cost next to
            nothing (copy and constant experts of MoE++).
    """

    indices_KNS: Tensor
    gates_KNS: Tensor
    counts_KE: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    state: Tensor | None = None
    extra_KND: Tensor | None = None


class Router(nn.Module, ABC):
    """Base of all routers of one MoE layer, for a whole cohort.

    Parameters and persistent buffers carry the leading axis K; row k never sees row j's tokens.
    A router must be causal (a token's routing depends on no later token), deterministic, compute
    its logits in fp32 whatever the dtype of `x`, and pass `mixopt.testing.routers`.

    The step loop calls `begin_step` before the first micro-batch of an optimizer step and
    `end_step` after the optimizer moved; between them `step_counts_KE` gathers the assignments of
    every micro-batch, which makes the balance loss global (2501.11873). Evaluation (`eval()`)
    leaves every state alone. Where several processes train one model, each on a part of every
    micro-batch, counts are those of all of them (`sum_over_processes`).

    Attributes:
        settings_class: its own settings, and what it weighs.
        layer_class: `package.module:Name` of the layer that it routes for.
        capturable: whether `route` is the same operators on the same shapes at every training step,
            and no Python looks at a value: a GPU then replays the step (`mixopt.proxies.captured`).
        reads_other_layers: whether `route` reads parameters of other layers' routers.
        reads_whole_batch: whether a token's experts depend on other sequences of its micro-batch,
            which then cannot be split over processes.
        sum_over_processes: the sum of a tensor over all processes that train the model; None where
            one process does.
        settings: what the study file says under `router_settings`.
        null_experts: choices that are no experts of the layer.
        choices: columns of the scores: the E experts, and the null experts after them.
        step_counts_KE: assignments of this optimizer step so far, (K, choices).
        step_tokens_K: real tokens of this optimizer step so far.
    """

    settings_class: ClassVar[type[RouterSettings]] = RouterSettings
    layer_class: ClassVar[str] = "mixopt.models.moe:MoE"
    capturable: ClassVar[bool] = False
    reads_other_layers: ClassVar[bool] = False
    reads_whole_batch: ClassVar[bool] = False
    step_counts_KE: Tensor
    step_tokens_K: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__()
        self.config, self.cohort, self.layer = config, cohort, layer
        self.settings = build_settings(
            self.settings_class, config.router_settings, "router", "router_settings"
        )
        self.choices = config.experts + self.null_experts
        zeros_KE = torch.zeros(cohort, self.choices)
        self.register_buffer("step_counts_KE", zeros_KE, persistent=False)
        self.register_buffer("step_tokens_K", torch.zeros(cohort), persistent=False)
        # of the micro-batches of this step: those before the present one, and what `route` counted
        self._before = self.step_counts_KE, self.step_tokens_K
        self._counted: list[tuple[Tensor, Tensor | int]] = []
        self.sum_over_processes: Callable[[Tensor], Tensor] | None = None

    @property
    def null_experts(self) -> int:
        """None, unless a subclass has some."""
        return 0

    @abstractmethod
    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """The routing of these tokens."""

    @abstractmethod
    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the parameters of proxy k from `generators[k]` (on the CPU)."""

    def forward(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """Same as `route`; in training its assignments are added to those of the step.

        That is no part of `route`: a compiler may read again, for the gradient, what it has read.
        """
        self._before = self.step_counts_KE.clone(), self.step_tokens_K.clone()
        self._counted.clear()
        routing = _route(self, x_KND, context) if self.capturable else self.route(x_KND, context)
        if self.training:
            for counts_KE, tokens in self._counted:
                self.step_counts_KE += counts_KE
                self.step_tokens_K += tokens
        return routing

    @contextmanager
    def replaying(self, counts_KE: Tensor, tokens_K: Tensor) -> Iterator[None]:
        """Within it, tokens are routed as when the step's counts were these, and not counted again.

        For a forward pass that is computed once more to get its gradient.
        """
        now = self.step_counts_KE.clone(), self.step_tokens_K.clone()
        self.step_counts_KE.copy_(counts_KE)
        self.step_tokens_K.copy_(tokens_K)
        try:
            yield
        finally:
            self.step_counts_KE.copy_(now[0])
            self.step_tokens_K.copy_(now[1])

    def join(self, routers: Sequence[Router]) -> None:
        """Called once by a model, with the routers of all its layers, before any routes.

        They may have been initialized before or not: a model draws one block after another.
        """

    def begin_step(self, progress: float = 0.0) -> None:
        """Forget the assignments of the last optimizer step.

        Args:
            progress: share of the training's steps that are done, in [0, 1).
        """
        self.step_counts_KE.zero_()
        self.step_tokens_K.zero_()

    def end_step(self) -> None:
        """Update state that changes once per optimizer step, from `step_counts_KE`."""

    def count(self, indices_KNS: Tensor, mask_KN: Tensor | None) -> Tensor:
        """Real tokens assigned to each choice, (K, choices) fp32; gathered over a training step.

        Of all processes, in training. The first E columns are `Routing.counts_KE`. A router counts
        once per `route`.
        """
        choices_E = torch.arange(self.choices, device=indices_KNS.device)
        chosen_KNE = (indices_KNS.unsqueeze(-1) == choices_E).any(2)
        if mask_KN is not None:
            chosen_KNE = chosen_KNE & mask_KN.unsqueeze(-1)
        counts_KE = chosen_KNE.sum(1).float()
        tokens: Tensor | int = chosen_KNE.shape[1] if mask_KN is None else mask_KN.sum(1)
        if self.training and self.sum_over_processes is not None:
            own_K = torch.as_tensor(tokens, device=counts_KE.device).expand(len(counts_KE)).float()
            total_KX = self.sum_over_processes(torch.cat([counts_KE, own_K.unsqueeze(1)], -1))
            counts_KE, tokens = total_KX[:, :-1], total_KX[:, -1]
        self._counted.append((counts_KE, tokens))
        return counts_KE

    def shares(self, counts_KE: Tensor) -> Tensor:
        """Each choice's share of the assignments, (K, choices).

        Of this micro-batch, or of all so far in this optimizer step (`config.balance`).
        """
        if self.training and self.config.balance == "global":
            counts_KE = self._before[0] + counts_KE
        return counts_KE / counts_KE.sum(-1, keepdim=True).clamp_min(1.0)

    def rates(self, counts_KE: Tensor, mask_KN: Tensor | None, tokens: int) -> Tensor:
        """How many times a token is assigned to each choice on average, (K, choices); as `shares`.

        Args:
            counts_KE: assignments of this micro-batch.
            mask_KN: True where a token is real; None if all are.
            tokens: N.
        """
        real_K1: Tensor | int = tokens if mask_KN is None else mask_KN.sum(1, keepdim=True)
        if self.training and self.sum_over_processes is not None:
            own = torch.as_tensor(real_K1, device=counts_KE.device, dtype=torch.float32)
            real_K1 = self.sum_over_processes(own.expand(len(counts_KE), 1).clone())
        if self.training and self.config.balance == "global":
            counts_KE = self._before[0] + counts_KE
            real_K1 = real_K1 + self._before[1].unsqueeze(-1)
        return counts_KE / torch.as_tensor(real_K1, device=counts_KE.device).clamp_min(1)

    def balance_loss(
        self, probabilities_KNE: Tensor, counts_KE: Tensor, mask_KN: Tensor | None
    ) -> Tensor:
        """Switch balance loss E·Σ f_i P_i, (K,), at least about 1 (2101.03961, 2501.11873).

        f is each expert's share of the assignments, see `shares`; P is the mean router probability
        of this micro-batch.
        """
        means_KE = mean_over_tokens(probabilities_KNE, mask_KN)
        return self.choices * (self.shares(counts_KE) * means_KE).sum(-1)


@fused
def _route(router: Router, x_KND: Tensor, context: RoutingContext) -> Routing:
    return router.route(x_KND, context)


def score(x_KND: Tensor, weight_KDE: Tensor) -> Tensor:
    """X W in fp32, (K, N, E), laid out expert by expert.

    E is small: on a CPU products, softmax and their gradients take a third to a fifth of the time
    where tokens lie side by side.
    """
    logits_KNE: Tensor = _Score.apply(x_KND.float(), weight_KDE.float())
    return logits_KNE


def probabilities(logits_KNE: Tensor) -> Tensor:
    """Softmax over the choices, (K, N, E), laid out like `score`."""
    return torch.softmax(logits_KNE.mT, 1).mT


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_KND: Tensor, weight_KDE: Tensor) -> Tensor:
        ctx.save_for_backward(x_KND, weight_KDE)
        return torch.bmm(weight_KDE.mT, x_KND.mT).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogits_KNE: Tensor) -> tuple[Tensor, Tensor]:
        x_KND, weight_KDE = ctx.saved_tensors
        dlogits_KEN = dlogits_KNE.mT.contiguous()
        dx_KND = torch.bmm(dlogits_KEN.mT, weight_KDE.mT)
        return dx_KND, torch.bmm(dlogits_KEN, x_KND).mT


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


@torch.no_grad()
def draw_normal(
    parameter: Tensor, generators: Sequence[torch.Generator], std: float = INITIAL_STD
) -> None:
    """Fill row k with draws from N(0, std²) of `generators[k]`."""
    for row, generator in zip(parameter, generators, strict=True):
        row.copy_(torch.randn(row.shape, generator=generator).mul_(std))


@torch.no_grad()
def gate_entropies(routing: Routing) -> Tensor:
    """Entropy of each row's gates as shares of their sum, in nats, (K, N).

    A token that reaches at most one expert counts 0.
    """
    gates_KNS = routing.gates_KNS
    shares_KNS = gates_KNS / gates_KNS.sum(-1, keepdim=True).clamp_min(1e-9)
    entropies_KN: Tensor = torch.special.entr(shares_KNS).sum(-1)
    return entropies_KN


@torch.no_grad()
def reaches_none(routing: Routing) -> Tensor:
    """1 where a row reaches no expert that computes, all slots being empty, else 0, (K, N)."""
    return (routing.indices_KNS < 0).all(-1).float()


def row_mask(routing: Routing, mask_KN: Tensor | None) -> Tensor | None:
    """The mask of a routing's rows, which may be sub-tokens."""
    if mask_KN is None:
        return None
    return mask_KN.repeat_interleave(routing.indices_KNS.shape[1] // mask_KN.shape[1], 1)


def most_slots(chosen_KNE: Tensor) -> int:
    """Slots that hold what every token chose.

    On a GPU one for every expert: empty ones cost less than waiting for the tokens' numbers, with
    which no step could be captured.
    """
    if chosen_KNE.is_cuda:
        return chosen_KNE.shape[-1]
    return max(1, int(chosen_KNE.sum(-1).max()))


def compact(chosen_KNE: Tensor, gates_KNE: Tensor) -> tuple[Tensor, Tensor]:
    """Slots of a token for the experts that a mask chooses: indices and gates, both (K, N, S).

    S is `most_slots`: the largest number that one token chose, or E on a GPU. Lower expert numbers
    come first.
    """
    slots = most_slots(chosen_KNE)
    order_KNS = chosen_KNE.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    order_KNS = order_KNS[..., :slots]
    used_KNS = chosen_KNE.gather(-1, order_KNS)
    gates_KNS = torch.where(used_KNS, gates_KNE.gather(-1, order_KNS), 0.0)
    return torch.where(used_KNS, order_KNS, -1), gates_KNS
