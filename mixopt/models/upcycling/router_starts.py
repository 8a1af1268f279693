"""What a router is before it is trained.

Shapes: E experts, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.core.part_settings import build_settings
from mixopt.core.registry import resolve
from mixopt.models.upcycling import ROUTER_STARTS, SEED
from mixopt.models.upcycling.hidden_states import LayerStates


@dataclass(frozen=True)
class RouterStart(ABC):
    """Gives every block's router its first weights. Fields are settings."""

    @property
    def needs_samples(self) -> bool:
        """Whether it looks at the seed's hidden states on a sample of each expert's text."""
        return False

    def check(self, sources: Sequence[str]) -> None:
        """Refuse experts that a start from samples could not tell apart.

        Args:
            sources: where each expert comes from.

        Raises:
            StudyError: all come from one model.
        """
        if self.needs_samples and len(set(sources)) == 1:
            raise StudyError(
                f"all experts come from {sources[0]!r}, so no sample tells them apart",
                where="router",
                hint="Choose the router start random, or a method that takes domain experts",
            )

    @abstractmethod
    def start(
        self,
        sources: Sequence[str],
        width: int,
        random: torch.Generator,
        states: LayerStates | None,
    ) -> Tensor:
        """The rows (E, D) of one block's router, fp32.

        Args:
            sources: where each expert comes from.
            width: D.
            random: what is drawn, is drawn from it; seeded by block.
            states: what the block's router will read; None without samples.
        """


@dataclass(frozen=True)
class RandomRouter(RouterStart):
    """N(0, std²): never zeros, for ties send every token to the same experts.

    Attributes:
        std: standard deviation.
    """

    std: float = 0.02

    def start(
        self,
        sources: Sequence[str],
        width: int,
        random: torch.Generator,
        states: LayerStates | None,
    ) -> Tensor:
        """See the class."""
        return torch.randn(len(sources), width, generator=random) * self.std


def expert_means(sources: Sequence[str], states: LayerStates | None) -> Tensor:
    """Mean state of each expert's text, (E, D).

    The seed's is the mean over all samples, unless there is a sample `seed`.

    Raises:
        StudyError: an expert has no sample.
    """
    means = {} if states is None else states.means
    check_covered(sources, means)
    everything = torch.stack(list(means.values())).mean(0)
    return torch.stack([means.get(name, everything) for name in sources])


def check_covered(sources: Sequence[str], samples: Collection[str]) -> None:
    """Refuse samples that lack an expert's; the seed needs none of its own.

    Raises:
        StudyError: an expert has no sample.
    """
    for name in sources:
        if name not in samples and (name != SEED or not samples):
            raise StudyError(
                f"there is no sample for the expert {name!r}",
                where="samples",
                hint="Give a sample of text for every source, by its name",
            )


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
