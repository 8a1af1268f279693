"""LLaMA-MoE (2406.16554): the seed's feed-forward layer cut into disjoint experts.

Shapes: E experts, D width, F hidden width of the dense layer, F' = F / E, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.balanced_k_means import balanced_k_means
from mixopt.models.upcycling.base import Block, FeedForward, Upcycler, split_width

SPLITS = ("random", "k-means", "co-activation")


@dataclass(frozen=True)
class LlamaMoE(Upcycler):
    """The F hidden channels are shared out to the E experts, F / E each.

    A token computes k / E of the dense layer: the function changes, unless k = E and gates are
    equal. The experts' down projections are multiplied by k · rescale where gates sum to 1, else by
    E · rescale, so that equal gates give rescale times the sum of the chosen parts. The dense
    experts are not used.

    Attributes:
        split: `random`; `k-means`, balanced, of the rows of the up projection, as in MoEfication
            (2110.01786): channels that read alike go to the same expert; `co-activation`, balanced
            k-means of the channels' magnitudes |silu(gate x) ⊙ up x| over the samples' tokens, each
            of unit length: channels that are active together go to the same expert.
        rescale: factor on top of the sum of the chosen parts; E / k makes up for the parts that
            are not chosen.
    """

    split: str = "random"
    rescale: float = 1.0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise StudyError(
                f"must be one of {', '.join(SPLITS)}, is {self.split!r}", where="settings.split"
            )
        if self.rescale <= 0:
            raise StudyError(f"must be above 0, is {self.rescale}", where="settings.rescale")

    @property
    def needs_samples(self) -> bool:
        """For `co-activation`."""
        return self.split == "co-activation"

    def expert_width(self, hidden: int, experts: int) -> int:
        """F / E."""
        return split_width(hidden, experts)

    def dense_width(self, expert_width: int, experts: int) -> int:
        """F."""
        return expert_width * experts

    def experts(self, block: Block) -> Iterator[FeedForward]:
        """See the class."""
        reached = block.experts_per_token if block.unit_gates else block.experts
        for channels in self._split(block):
            part = block.seed.channels(channels)
            yield FeedForward(part.gate, part.up, part.down * (reached * self.rescale))

    def _split(self, block: Block) -> Iterator[Tensor]:
        """The channels of each expert, in rising order."""
        if self.split == "random":
            order = torch.randperm(block.seed.hidden, generator=block.random)
            groups = order.chunk(block.experts)
        else:
            points = block.seed.up.float() if self.split == "k-means" else _activity(block)
            labels = balanced_k_means(points, block.experts, block.random)
            groups = tuple(torch.nonzero(labels == e).flatten() for e in range(block.experts))
        for group in groups:
            yield group.sort().values


def _activity(block: Block) -> Tensor:
    """Each channel's magnitude at the samples' tokens, scaled to unit length, (F, N)."""
    if block.inputs is None:
        raise StudyError(
            "co-activation looks at samples, and there are none",
            where="samples",
            hint="Give samples of text, or choose another split",
        )
    seed, x_ND = block.seed, block.inputs
    hidden_NF = F.silu(x_ND @ seed.gate.float().T) * (x_ND @ seed.up.float().T)
    return F.normalize(hidden_NF.abs().T, dim=1)
