"""A model that transformers runs, to be evaluated as our own are.

Shapes: K = 1 model, B sequences, T positions, N = B·T tokens, E experts, S experts of a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mixopt.core.errors import CheckpointError
from mixopt.models.routers.base import Routing


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

    Example:
        model = ForeignModel.load(Path("moe"), torch.float32)
        nats, routings = model.nats(ids[..., :-1], ids[..., 1:])
    """

    def __init__(self, model: Any) -> None:
        self._model = model.eval()
        self.training = False

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype, device: str = "cpu") -> ForeignModel:
        """The model in `folder`; nothing is fetched from elsewhere, and no code of it is run.

        Raises:
            CheckpointError: transformers is not installed, or cannot load it.
        """
        try:
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise CheckpointError(
                "models of other tools are run by transformers, which is not installed",
                where=str(folder),
                hint="pip install 'mixopt[hf]'",
            ) from error
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"transformers cannot load it: {error}",
                where=str(folder),
                hint="Give a folder that AutoModelForCausalLM loads",
            ) from error
        return cls(model.to(device))

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
        mask_BT = None if mask_KBT is None else mask_KBT[0].long()
        more = {"output_router_logits": True} if self._experts_per_token else {}
        found = self._model(input_ids=ids_KBT[0], attention_mask=mask_BT, use_cache=False, **more)
        targets_N = targets_KBT.flatten()
        nats_N = F.cross_entropy(found.logits.float().flatten(0, 1), targets_N, reduction="none")
        layers = getattr(found, "router_logits", None) or ()
        return nats_N[None], [self._routing(logits_NE) for logits_NE in layers]

    @property
    def _experts_per_token(self) -> int:
        return int(getattr(self._model.config, "num_experts_per_tok", 0) or 0)

    def _routing(self, logits_NE: Tensor) -> Routing:
        """The k most probable experts; transformers gives logits, and what follows is known."""
        shares_NE = logits_NE.flatten(0, -2).float().softmax(-1)
        gates_NS, indices_NS = shares_NE.topk(self._experts_per_token, dim=-1)
        gates_NS = gates_NS / gates_NS.sum(-1, keepdim=True)
        counts_E = torch.bincount(indices_NS.flatten(), minlength=shares_NE.shape[-1]).float()
        return Routing(indices_NS[None], gates_NS[None], counts_E[None])
