"""A model that transformers runs, evaluated as our own are.

Shapes: K = 1 model, B sequences, T positions, N = B·T tokens, D width, V vocabulary, E experts, S
experts of a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mixopt.models.attention import positions_within
from mixopt.models.families.loaded import load_model, routers_of
from mixopt.models.routers.base import Routing

LOGITS_AT_ONCE = 2**24  # values: 64 MB in fp32; 32 sequences of 2,048 over 150k tokens are 39 GB


class LanguageModel(Protocol):
    """What an evaluation asks of a model: a cohort of K, and the nats of every target."""

    training: bool

    @property
    def cohort(self) -> int:
        """K."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Nats of every target, (K, N), and the routing of every MoE layer."""

    def train(self, mode: bool = True) -> Any:
        """Choose between training and evaluation."""

    def eval(self) -> Any:
        """Choose evaluation."""


class ForeignModel:
    """A causal language model of transformers in the place of `Transformer`.

    Args:
        model: of transformers; it stays as it is.
        end_of_text: id of the token between documents, if tokens see their own document alone.

    Example:
        model = ForeignModel.load(Path("moe"), torch.float32)
        nats, routings = model.nats(ids[..., :-1], ids[..., 1:])
    """

    def __init__(self, model: Any, end_of_text: int | None = None) -> None:
        self._model, self._end_of_text = model.eval(), end_of_text
        self.training = False
        self._routed: list[tuple[Tensor, Tensor]] = []
        self._experts = [int(router.num_experts) for router in routers_of(model)]
        for router in routers_of(model):
            router.register_forward_hook(self._keep)

    @classmethod
    def load(
        cls,
        folder: Path,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        end_of_text: int | None = None,
    ) -> ForeignModel:
        """The model in `folder`; nothing is fetched from elsewhere, and no code of it is run.

        Raises:
            CheckpointError: transformers is not installed, or cannot load it.
        """
        hint = "Give a folder that transformers' AutoModelForCausalLM loads"
        return cls(load_model(folder, dtype, hint).to(device), end_of_text)

    @property
    def cohort(self) -> int:
        """K = 1."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        found: torch.device = self._model.device
        return found

    def train(self, mode: bool = True) -> ForeignModel:
        """Nothing: it is not trained here."""
        return self

    def eval(self) -> ForeignModel:
        """Nothing: it always evaluates."""
        return self

    @torch.no_grad()
    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """See `LanguageModel`; `mask_KBT` is True where a position is real."""
        self._routed.clear()
        nats_KN = nats_of(self._model, ids_KBT, targets_KBT, mask_KBT, self._end_of_text)
        layers = zip(self._routed, self._experts, strict=True)
        return nats_KN, [routing_of(*routed, experts) for routed, experts in layers]

    def _keep(self, router: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        self._routed.append((output[1], output[2]))


@torch.no_grad()
def nats_of(
    model: Any,
    ids_KBT: Tensor,
    targets_KBT: Tensor,
    mask_KBT: Tensor | None,
    end_of_text: int | None = None,
) -> Tensor:
    """Nats of every target, (1, N), by a causal language model of transformers."""
    x_BTD = model.model(
        input_ids=ids_KBT[0], **attended(ids_KBT[0], mask_KBT, end_of_text), use_cache=False
    ).last_hidden_state
    head = model.get_output_embeddings()
    rows = max(1, LOGITS_AT_ONCE // head.out_features)
    nats = [
        F.cross_entropy(head(x_ND).float(), targets_N, reduction="none")
        for x_ND, targets_N in zip(
            x_BTD.flatten(0, 1).split(rows), targets_KBT.flatten().split(rows), strict=True
        )
    ]
    return torch.cat(nats)[None]


def attended(
    ids_BT: Tensor, mask_KBT: Tensor | None = None, end_of_text: int | None = None
) -> dict[str, Tensor | None]:
    """What tells a model of transformers which tokens see which; arguments of its forward.

    Positions that begin anew make it mask documents from each other. Padding is on the right, and
    no real position sees it anyway.
    """
    if end_of_text is not None:
        return {"position_ids": positions_within(ids_BT, end_of_text)}
    return {"attention_mask": None if mask_KBT is None else mask_KBT[0].long()}


def routing_of(gates_NS: Tensor, indices_NS: Tensor, experts: int) -> Routing:
    """What a router of transformers gave, as one of ours."""
    gates_NS = gates_NS.float()
    counts_E = torch.bincount(indices_NS.flatten(), minlength=experts).float()
    return Routing(indices_NS[None], gates_NS[None], counts_E[None])
