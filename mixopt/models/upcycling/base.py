"""What every upcycling method is: dense feed-forward layers in, experts out, a block at a time.

Shapes: one model, without the cohort axis. E experts, D width, F hidden width of a dense layer,
F' of an expert, N tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.core.part_settings import build_settings
from mixopt.core.registry import resolve
from mixopt.models.upcycling import SEED, UPCYCLERS


@dataclass(frozen=True)
class FeedForward:
    """One SwiGLU layer, down(silu(gate x) * up x); as `torch.nn.Linear` holds them.

    Attributes:
        gate: (F, D).
        up: (F, D).
        down: (D, F).
    """

    gate: Tensor
    up: Tensor
    down: Tensor

    @property
    def hidden(self) -> int:
        """F."""
        return self.gate.shape[0]

    def channels(self, rows: Tensor) -> FeedForward:
        """The layer of these hidden channels alone, `rows` (F',)."""
        return FeedForward(self.gate[rows], self.up[rows], self.down[:, rows])


@dataclass(frozen=True)
class Block:
    """The feed-forward layers of one block.

    Attributes:
        number: of the block, from 0.
        seed: of the dense seed model.
        sources: expert name → layer of the dense expert branched from the seed, in expert order.
        experts: E.
        experts_per_token: k.
        unit_gates: whether a token's gates sum to 1; if not, they are softmax probabilities over
            the E experts.
        random: what is drawn, is drawn from it; seeded by block.
        inputs: what the seed's layer reads at some tokens of the samples, (N, D); None without
            samples.
    """

    number: int
    seed: FeedForward
    sources: Mapping[str, FeedForward]
    experts: int
    experts_per_token: int
    unit_gates: bool
    random: torch.Generator
    inputs: Tensor | None = None


@dataclass(frozen=True)
class Upcycler(ABC):
    """Turns a dense seed model, and dense experts branched from it, into one mixture of experts.

    Its fields are its settings. Implementations are deterministic given the generator of the block,
    leave their inputs alone, and pass `mixopt.testing.upcyclers`.
    """

    def sources(self, names: Sequence[str], experts: int) -> tuple[str, ...]:
        """Where each of the E experts comes from: of `names`, or `seed`.

        Raises:
            StudyError: so many experts cannot be made of these models.
        """
        return (SEED,) * experts

    def expert_width(self, hidden: int, experts: int) -> int:
        """F', of dense layers of width `hidden`.

        Raises:
            StudyError: `hidden` does not divide so.
        """
        return hidden

    def dense_width(self, expert_width: int, experts: int) -> int:
        """F, of dense layers that experts of width `expert_width` are made of."""
        return expert_width

    @abstractmethod
    def experts(self, block: Block) -> Iterator[FeedForward]:
        """The E experts of a block, one after the other."""

    def router(self, rows: Tensor) -> Tensor:
        """The router (E, D) of freshly drawn `rows` (E, D), where experts belong together."""
        return rows

    @property
    def needs_samples(self) -> bool:
        """Whether it reads `Block.inputs`."""
        return False

    @property
    def merges(self) -> bool:
        """Whether what is no expert is merged over the sources, or else the seed's."""
        return False

    def preserves_function(self, unit_gates: bool, experts: int, experts_per_token: int) -> bool:
        """Whether the model computes what the seed does.

        Args:
            unit_gates: whether a token's gates sum to 1.
            experts: E.
            experts_per_token: k.
        """
        return False

    @property
    def channels_kept(self) -> float:
        """Share of the experts' hidden channels that are a source's, unchanged but for a scale."""
        return 1.0


def upcycler_class(name: str) -> type[Upcycler]:
    """The upcycler of that registry name, or of a user's `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `Upcycler`.
    """
    return resolve("upcycler", name, UPCYCLERS, Upcycler)  # type: ignore[type-abstract]


def make_upcycler(name: str, settings: Mapping[str, Any] | None = None) -> Upcycler:
    """The upcycler of that name with its settings.

    Raises:
        StudyError: there is no such upcycler, or it has no such setting.
    """
    return build_settings(upcycler_class(name), settings or {}, "upcycler", "settings")


def check_one_source_each(names: Sequence[str], experts: int) -> tuple[str, ...]:
    """`names` in order, then the seed if there is room for one more expert.

    Raises:
        StudyError: E is neither the number of `names` nor one more.
    """
    if names and experts == len(names):
        return tuple(names)
    if names and experts == len(names) + 1:
        return (*names, SEED)
    raise StudyError(
        f"{experts} experts cannot be made of {len(names)} dense models",
        where="experts",
        hint=f"Ask for {len(names)} experts, or one more to keep the seed among them",
    )


def split_width(hidden: int, parts: int) -> int:
    """`hidden` / `parts`.

    Raises:
        StudyError: it does not divide so.
    """
    if hidden % parts:
        raise StudyError(
            f"the dense layers' hidden width {hidden} does not split into {parts} equal parts",
            where="experts",
            hint="Choose a number that divides it",
        )
    return hidden // parts
