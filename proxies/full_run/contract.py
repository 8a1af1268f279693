"""What a full run asks of a model: token ids in, losses and routing out; ours, and anybody's.

Shapes: B sequences, T positions, N = B·T tokens, K = 1 model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mixopt.core.phases import Part
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Router, Routing
from mixopt.models.transformer import State
from mixopt.proxies.foreign import LanguageModel


class FullModel(LanguageModel, Protocol):
    """A model that a full run can shard, train and evaluate; it is an `nn.Module` as well.

    Balance and z-losses are ours for every model: its routers are `Router`s, which count over all
    processes where `sum_over_processes` says so.

    Attributes:
        compute_dtype: of the matrix products.
        gather_dtype: in which the parameters of `sharded_alone` are gathered; None: fp32, as all
            others, and as all lie on their devices.
    """

    compute_dtype: torch.dtype
    gather_dtype: torch.dtype | None

    def sharded_alone(self) -> Sequence[nn.Module]:
        """Parts that are gathered and freed on their own."""

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor, list[Routing]]:
        """Nats per token (1,), the routers' losses (1,), and the routing of every MoE layer."""

    def begin_step(self, progress: float = 0.0) -> None:
        """Before the first micro-batch of an optimizer step."""

    def end_step(self) -> None:
        """After the optimizer moved."""

    def routers(self) -> list[Router]:
        """One for each MoE layer."""

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by the names of `proxy_state`."""

    def shape_of(self, name: str) -> torch.Size:
        """The shape of a weight in `proxy_state`, whatever it lies in here."""

    def decays(self, name: str) -> bool:
        """Whether weight decay touches this weight."""

    def part_of(self, name: str) -> Part:
        """Whose this weight is: a router's, the experts', or shared by all tokens."""

    def buffers_to_keep(self) -> dict[str, Tensor]:
        """State that is no parameter, by its names in `proxy_state`, with the axis K = 1."""

    def load_proxy_state(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the model, before it is sharded."""


@dataclass(frozen=True)
class ModelKind:
    """How models of a kind are made and saved.

    Attributes:
        build: from shape, seed, dtype of the products and device.
        save: the model, into a folder, with the whole state by the names of `proxy_state`; called
            in one process alone.
        recompute: whether its activations are computed again for gradients.
    """

    build: Callable[[ModelConfig, int, torch.dtype, torch.device], FullModel]
    save: Callable[[Any, Path, State], None]
    recompute: bool = False
