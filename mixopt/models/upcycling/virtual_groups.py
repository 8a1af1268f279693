"""Virtual groups (2410.07524): fine-grained experts, shards of copies of the seed's layers.

Shapes: E experts, D width, F hidden width of the dense layer, G granularity, C = E / G copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.base import Block, FeedForward, Upcycler, split_width

# placement → exponents of the scale on gate, up and down
PLACEMENTS = {
    "down": (0.0, 0.0, 1.0),
    "root": (0.0, 1 / 2, 1 / 2),
    "cube-root": (1 / 3, 1 / 3, 1 / 3),
}


@dataclass(frozen=True)
class VirtualGroups(Upcycler):
    """C copies of the seed's layer, each cut into G shards; a shard is an expert of width F / G.

    The shards of a copy have equal router rows, so a token that reaches one reaches all of them,
    and k / G copies. A token's gates on one copy are equal, so every shard is scaled by

        s = G            where gates sum to 1, exactly
        s = E·G / k      where they are softmax probabilities over all E, on average

    (the paper writes E·G²/k: its E counts the copies). Training tells the shards apart. The dense
    experts are not used.

    Attributes:
        granularity: G; k must be a multiple of it for the function to be kept.
        placement: where the scale goes: all of it on `down`; its `root` on up and down; its
            `cube-root` on gate, up and down, as in the paper, which changes the function of a
            SwiGLU layer.
    """

    granularity: int = 2
    placement: str = "down"

    def __post_init__(self) -> None:
        if self.granularity < 1:
            raise StudyError(
                f"must be at least 1, is {self.granularity}", where="settings.granularity"
            )
        if self.placement not in PLACEMENTS:
            raise StudyError(
                f"must be one of {', '.join(PLACEMENTS)}, is {self.placement!r}",
                where="settings.placement",
            )

    def sources(self, names: Sequence[str], experts: int) -> tuple[str, ...]:
        """The seed alone."""
        if experts % self.granularity:
            raise StudyError(
                f"{experts} experts are no whole number of copies in {self.granularity} shards",
                where="experts",
                hint="Choose a multiple of settings.granularity",
            )
        return (SEED,) * experts

    def expert_width(self, hidden: int, experts: int) -> int:
        """F / G."""
        return split_width(hidden, self.granularity)

    def dense_width(self, expert_width: int, experts: int) -> int:
        """F."""
        return expert_width * self.granularity

    def experts(self, block: Block) -> Iterator[FeedForward]:
        """See the class."""
        scale = self.scale(block.unit_gates, block.experts, block.experts_per_token)
        gate, up, down = (scale**exponent for exponent in PLACEMENTS[self.placement])
        shards = [
            FeedForward(part.gate * gate, part.up * up, part.down * down)
            for part in map(
                block.seed.channels, torch.arange(block.seed.hidden).chunk(self.granularity)
            )
        ]
        for _ in range(block.experts // self.granularity):
            yield from shards

    def scale(self, unit_gates: bool, experts: int, experts_per_token: int) -> float:
        """The scale s of every expert."""
        if unit_gates:
            return float(self.granularity)
        return experts * self.granularity / experts_per_token

    def router(self, rows: Tensor) -> Tensor:
        """The first E / G rows, each G times."""
        return rows[: len(rows) // self.granularity].repeat_interleave(self.granularity, 0)

    def preserves_function(self, unit_gates: bool, experts: int, experts_per_token: int) -> bool:
        """Where gates sum to 1, tokens reach whole copies and the scale is off the gate."""
        exact = self.granularity == 1 or PLACEMENTS[self.placement][0] == 0
        return unit_gates and exact and experts_per_token % self.granularity == 0
