"""Sparse upcycling (2212.05055): every expert starts as a copy of the dense feed-forward layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixopt.models.upcycling.base import Block, FeedForward, Upcycler


@dataclass(frozen=True)
class SparseUpcycling(Upcycler):
    """Copies of the seed's layers; the dense experts are not used.

    The model computes what the seed does as long as a token's gates sum to 1.
    """

    def experts(self, block: Block) -> Iterator[FeedForward]:
        """See the class."""
        for _ in range(block.experts):
            yield block.seed

    def preserves_function(self, unit_gates: bool, experts: int, experts_per_token: int) -> bool:
        """Where gates sum to 1."""
        return unit_gates
