"""Branch-Train-MiX (2403.07816): the feed-forward layers of domain experts become the experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixopt.models.upcycling.base import Block, FeedForward, Upcycler, check_one_source_each


@dataclass(frozen=True)
class BranchTrainMix(Upcycler):
    """Feed-forward layers become experts, the rest is merged.

    With one more expert than there are dense experts, the seed itself is the last expert and takes
    part in the merge, as in the paper. Train the result with a balance loss: without one an expert
    dies.
    """

    def sources(self, names: Sequence[str], experts: int) -> tuple[str, ...]:
        """The dense experts in order, then the seed if there is room for it."""
        return check_one_source_each(names, experts)

    def experts(self, block: Block) -> Iterator[FeedForward]:
        """See the class."""
        yield from block.sources.values()
        if block.experts > len(block.sources):
            yield block.seed

    @property
    def merges(self) -> bool:
        """Yes."""
        return True
