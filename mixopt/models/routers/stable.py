"""StableMoE (2204.08396): learn a routing, distil it into the token ids, then freeze it.

Shapes: K proxies, N tokens, D width, V vocabulary, P embedding width, E experts, S = k experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.core.errors import TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Router, Routing, RoutingContext, draw_normal, score
from mixopt.models.routers.settings import PlainGates, Shape, require


@dataclass(frozen=True)
class StableSettings(PlainGates):
    """A router that is distilled into one by token id, and then frozen (2204.08396).

    Attributes:
        stage: share of the steps after which the distilled router takes over.
        embedding_width: width of its token embeddings.
        balance: weight of the balance loss, α; it is another loss than that of other routers, and
            does not take their coefficient.
    """

    stage: float = 0.1
    embedding_width: int = 50
    balance: float = 0.3

    def __post_init__(self) -> None:
        require(self.balance >= 0, "balance", "at least 0", self.balance)
        require(0 <= self.stage <= 1, "stage", "between 0 and 1", self.stage)
        require(self.embedding_width >= 1, "embedding_width", "at least 1", self.embedding_width)

    def router_weights(self, config: Shape) -> float:
        """Both routers and the frozen copy of the distilled one."""
        distilled = self.embedding_width * (config.vocab_size + config.experts)
        return config.width * config.experts + 2 * distilled

    def reached_router_weights(self, config: Shape) -> float:
        """A token reads one row of the embeddings."""
        distilled = self.embedding_width * (1 + config.experts)
        return config.width * config.experts + distilled


class StableRouter(Router):
    """Stage 1: top-k of s = x W, gates sigmoid(s), and a router by token id that imitates it.

    Stage 2, when `stage` of the steps are done: the imitating router, as it was then, decides for
    good; the gates are still sigmoid(s). Stage 1 has a balance loss, Σ (n_i / n̄ - 1) · the mean of
    the gates given to expert i, and the cross-entropy of the imitation; stage 2 has no loss.

    The imitating router is copied into buffers: an optimizer's momentum and decay would go on
    moving frozen parameters.
    """

    settings_class = StableSettings
    capturable = True
    settings: StableSettings
    frozen_embedding: Tensor
    frozen_vectors: Tensor
    frozen_K: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        narrow, experts = self.settings.embedding_width, config.experts
        self.weight = nn.Parameter(torch.empty(cohort, config.width, experts))
        self.embedding = nn.Parameter(torch.empty(cohort, config.vocab_size, narrow))
        self.vectors = nn.Parameter(torch.empty(cohort, narrow, experts))
        self.register_buffer("frozen_embedding", torch.zeros_like(self.embedding.detach()))
        self.register_buffer("frozen_vectors", torch.zeros_like(self.vectors.detach()))
        self.register_buffer("frozen_K", torch.zeros(cohort, dtype=torch.bool))

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw all weights from N(0, 0.02²) but the embedding, from N(0, 1)."""
        draw_normal(self.weight, generators)
        draw_normal(self.embedding, generators, 1.0)
        draw_normal(self.vectors, generators)

    @torch.no_grad()
    def begin_step(self, progress: float = 0.0) -> None:
        """Freeze the imitating router once `progress` has come to the stage."""
        super().begin_step(progress)
        if progress >= self.settings.stage and not self._known_frozen():
            thawed_K11 = ~self.frozen_K.view(-1, 1, 1)
            for frozen, live in (
                (self.frozen_embedding, self.embedding),
                (self.frozen_vectors, self.vectors),
            ):
                frozen.copy_(torch.where(thawed_K11, live, frozen))
            self.frozen_K.fill_(True)

    def _known_frozen(self) -> bool:
        """Whether all are frozen; a GPU is not waited for, and what follows changes nothing."""
        return not self.frozen_K.is_cuda and bool(self.frozen_K.all())

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """See the class.

        Raises:
            TrainingError: the token ids are not given.
        """
        if context.ids_KN is None:
            raise TrainingError("needs the token ids", where="router stable")
        scores_KNE = score(x_KND, self.weight)
        k, ids_KN = self.config.experts_per_token, context.ids_KN
        frozen_K11 = self.frozen_K.view(-1, 1, 1)
        with torch.no_grad():
            own_KNE = _by_id(ids_KN, self.frozen_embedding, self.frozen_vectors)
            deciding_KNE = torch.where(frozen_K11, own_KNE, scores_KNE)
            indices_KNS = deciding_KNE.topk(k, -1).indices
            counts_KE = self.count(indices_KNS, context.mask_KN)
        gates_KNS = torch.sigmoid(scores_KNE.gather(-1, indices_KNS))
        routing = Routing(indices_KNS, gates_KNS, counts_KE)
        if self._known_frozen():
            return routing
        imitated_KNE = _by_id(ids_KN, self.embedding, self.vectors)
        losses = self._losses(routing, imitated_KNE, context.mask_KN)
        learning_K = (~self.frozen_K).float()
        losses = {name: learning_K * loss_K for name, loss_K in losses.items()}
        return Routing(indices_KNS, gates_KNS, counts_KE, losses)

    def _losses(
        self, routing: Routing, imitated_KNE: Tensor, mask_KN: Tensor | None
    ) -> dict[str, Tensor]:
        indices_KNS, gates_KNS = routing.indices_KNS, routing.gates_KNS
        log_KNS = torch.log_softmax(imitated_KNE, -1).gather(-1, indices_KNS)
        busy_KE = self.config.experts * self.shares(routing.counts_KE) - 1
        busy_KNS = busy_KE.gather(-1, indices_KNS.flatten(1)).view(indices_KNS.shape)
        real_KN1 = torch.ones_like(log_KNS[..., :1])
        if mask_KN is not None:
            real_KN1 = mask_KN.unsqueeze(-1).float()
        tokens_K = real_KN1.sum((1, 2)).clamp_min(1.0)
        balance_K = (busy_KNS * gates_KNS * real_KN1).sum((1, 2)) / tokens_K
        imitation_K = -(log_KNS * real_KN1).sum((1, 2)) / (tokens_K * indices_KNS.shape[-1])
        return {
            "balance": self.settings.balance * balance_K,
            "imitation": imitation_K,
        }


def _by_id(ids_KN: Tensor, embedding_KVP: Tensor, vectors_KPE: Tensor) -> Tensor:
    """Scores (K, N, E) of the router that sees token ids only."""
    offset_K1 = torch.arange(len(ids_KN), device=ids_KN.device).unsqueeze(1)
    flat_KN = ids_KN + offset_K1 * embedding_KVP.shape[1]
    return torch.bmm(F.embedding(flat_KN, embedding_KVP.flatten(0, 1)), vectors_KPE)
