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
from mixopt.models.single import Cut
from mixopt.proxies.foreign import LanguageModel


class FullModel(LanguageModel, Protocol):
    """A model that a full run can shard, train and evaluate; it is an `nn.Module` as well.

    Balance and z-losses are ours for every model: its routers are `Router`s, which count over all
    processes where `sum_over_processes` says so.

    Attributes:
        compute_dtype: of the matrix products.
        pieces: by names of `named_weights`, this process' rows of each weight, until the model is
            sharded; its parameters are on the meta device then. Empty where they are read from a
            checkpoint, or where one process holds the whole model.
        gather_dtype: in which the parameters of `sharded_alone` are gathered; None: fp32, as all
            others, and as all lie on their devices.
    """

    compute_dtype: torch.dtype
    pieces: dict[str, Tensor]
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
        """Overwrite the model, or its pieces, before it is sharded; reads one weight at a time."""


class Build(Protocol):
    """Makes a model of a kind."""

    def __call__(
        self,
        config: ModelConfig,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        cut: Cut | None = None,
        draw: bool = True,
    ) -> FullModel:
        """The model.

        Args:
            config: its shape.
            seed: draws weights that no file gives.
            dtype: of the products.
            device: where it computes.
            cut: what this process keeps of each weight, in `pieces`; None: the whole model.
            draw: False where other weights come in the place of the drawn ones.
        """


@dataclass(frozen=True)
class ModelKind:
    """How models of a kind are made and saved.

    Attributes:
        build: makes one.
        save: the model, into a folder, with the whole state by the names of `proxy_state`, each
            tensor when it is its turn, sorted by name; called in one process alone.
        recompute: whether its activations are computed again for gradients.
    """

    build: Build
    save: Callable[[Any, Path, Iterator[tuple[str, Tensor]]], None]
    recompute: bool = False
