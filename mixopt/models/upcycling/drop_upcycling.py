"""Drop-Upcycling (2502.19261): copies of the seed's layers, a share of their channels drawn anew.

Shapes: D width, F hidden width, P channels that are drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.base import Block, FeedForward, Upcycler

CHANNELS = ("one", "three")


@dataclass(frozen=True)
class DropUpcycling(Upcycler):
    """In every expert other channels are drawn anew, from N(mean, std²) of what they replace.

    Mean and standard deviation are of all weights of one projection that are replaced. The dense
    experts are not used.

    Attributes:
        share: of the F hidden channels that is drawn anew.
        channels: `one` set of channels for gate, up and down, as in the paper; `three` sets, one
            for each, as in its public code.
    """

    share: float = 0.5
    channels: str = "one"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise StudyError(f"must be 0 to 1, is {self.share}", where="settings.share")
        if self.channels not in CHANNELS:
            raise StudyError(
                f"must be one of {', '.join(CHANNELS)}, is {self.channels!r}",
                where="settings.channels",
            )

    def experts(self, block: Block) -> Iterator[FeedForward]:
        """See the class."""
        for _ in range(block.experts):
            yield self._expert(block.seed, block.random)

    def preserves_function(self, unit_gates: bool, experts: int, experts_per_token: int) -> bool:
        """Where nothing is drawn anew and gates sum to 1."""
        return unit_gates and self.share == 0

    @property
    def channels_kept(self) -> float:
        """Of `three` sets a channel is kept where none of them holds it: (1 - share)³ on average.

        The last decimals hang on F: the number of channels drawn anew is whole.
        """
        kept = 1 - self.share
        return kept if self.channels == "one" else kept**3

    def _expert(self, seed: FeedForward, random: torch.Generator) -> FeedForward:
        drawn = round(self.share * seed.hidden)
        sets = 1 if self.channels == "one" else 3
        found = [torch.randperm(seed.hidden, generator=random)[:drawn] for _ in range(sets)]
        gate, up, down = found * (3 // sets)
        return FeedForward(
            _drawn_anew(seed.gate, gate, random),
            _drawn_anew(seed.up, up, random),
            _drawn_anew(seed.down.T, down, random).T,
        )


def _drawn_anew(weights_FD: Tensor, channels_P: Tensor, random: torch.Generator) -> Tensor:
    """A copy whose rows `channels_P` are drawn from N(mean, std²) of these rows."""
    copy_FD = weights_FD.clone()
    if len(channels_P):
        old_PD = weights_FD[channels_P].float()
        std, mean = torch.std_mean(old_PD, correction=0)
        new_PD = torch.randn(old_PD.shape, generator=random) * std + mean
        copy_FD[channels_P] = new_PD.to(copy_FD.dtype)
    return copy_FD
