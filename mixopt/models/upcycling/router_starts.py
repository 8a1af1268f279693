"""What a router is before it is trained.

Shapes: E experts, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixopt.core.part_settings import build_settings
from mixopt.core.registry import resolve
from mixopt.models.upcycling import ROUTER_STARTS


@dataclass(frozen=True)
class RouterStart(ABC):
    """Gives every block's router its first weights. Fields are settings."""

    @abstractmethod
    def start(
        self, layer: int, sources: Sequence[str], width: int, random: torch.Generator
    ) -> Tensor:
        """The router's rows (E, D), fp32.

        Args:
            layer: number of the block.
            sources: where each expert comes from.
            width: D.
            random: what is drawn, is drawn from it.
        """


@dataclass(frozen=True)
class RandomRouter(RouterStart):
    """N(0, std²): never zeros, for ties send every token to the same experts.

    Attributes:
        std: standard deviation.
    """

    std: float = 0.02

    def start(
        self, layer: int, sources: Sequence[str], width: int, random: torch.Generator
    ) -> Tensor:
        """See the class."""
        return torch.randn(len(sources), width, generator=random) * self.std


def router_start_class(name: str) -> type[RouterStart]:
    """The start of that registry name, or of a user's `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `RouterStart`.
    """
    return resolve("router start", name, ROUTER_STARTS, RouterStart)  # type: ignore[type-abstract]


def make_router_start(name: str, settings: Mapping[str, Any] | None = None) -> RouterStart:
    """The start of that registry name, or `package.module:Name`, with its settings.

    Raises:
        StudyError: there is no such start, or it has no such setting.
    """
    kind = router_start_class(name)
    return build_settings(kind, settings or {}, "router start", "router_settings")
