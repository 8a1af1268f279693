"""TIES (2306.01708): trim small changes, elect a sign, average what agrees with it.

Shapes: n models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.merges import VALUES_AT_ONCE, Merge


@dataclass(frozen=True)
class Ties(Merge):
    """seed + scale · mean of the models' changes that have the elected sign.

    A model's change is its tensor less the seed's. Of each change the `density` largest share is
    kept, by magnitude. The elected sign of a weight is that of the sum of what is kept; the mean is
    over the models whose kept change has it. Trimmed tensor by tensor; the paper trims the whole
    model at once.

    Attributes:
        density: share of each change that is kept.
        scale: factor of the merged change.
    """

    density: float = 0.2
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise StudyError(
                f"must be above 0 and at most 1, is {self.density}",
                where="merge_settings.density",
            )

    def for_tensor(self, seed: Tensor, models: Sequence[Tensor]) -> Merge:
        """With the threshold of each model's changes, found without a copy of the tensor."""
        thresholds = tuple(_threshold(seed, model, self.density) for model in models)
        return _TiesOfTensor(thresholds, self.scale)

    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See the class."""
        return self.for_tensor(seed, models).merge(seed, models, random)


@dataclass(frozen=True)
class _TiesOfTensor(Merge):
    """TIES where each model keeps its changes of at least its threshold."""

    thresholds: tuple[float, ...]
    scale: float

    @property
    def by_rows(self) -> bool:
        return True

    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        start = seed.float()
        changes = torch.stack([model.float() - start for model in models])
        for change, threshold in zip(changes, self.thresholds, strict=True):
            change[change.abs() < threshold] = 0
        elected = changes.sum(0).sign()
        agrees = (changes.sign() == elected) & (elected != 0)
        total = torch.where(agrees, changes, 0.0).sum(0)
        return start + self.scale * total / agrees.sum(0).clamp_min(1)


def _threshold(seed: Tensor, model: Tensor, density: float) -> float:
    """The smallest magnitude among the `density` largest share of the changes, exactly.

    As fp32 numbers that are not negative sort as their bits do, it is found bit by bit: first the
    upper 16 by counting, then the lower 15 of those values that have them. `Tensor.kthvalue` gives
    the same and needs the whole tensor in fp32, twice, and its indices.
    """
    kept = max(1, round(density * seed.numel()))
    counts = _counts((bits >> 15 for bits in _bits(seed, model)), 2**16)
    upper, above = _bin(counts, kept)
    lowers = (bits[bits >> 15 == upper] & 0x7FFF for bits in _bits(seed, model))
    lower, _ = _bin(_counts(lowers, 2**15), kept - above)
    return float(torch.tensor(upper << 15 | lower, dtype=torch.int32).view(torch.float32))


def _bits(seed: Tensor, model: Tensor) -> Iterator[Tensor]:
    """Of the changes' magnitudes, as integers that sort as they do."""
    pieces = (tensor.flatten().split(VALUES_AT_ONCE) for tensor in (seed, model))
    for start, changed in zip(*pieces, strict=True):
        yield (changed.float() - start.float()).abs().view(torch.int32)


def _counts(values: Iterator[Tensor], bins: int) -> Tensor:
    counts = torch.zeros(bins, dtype=torch.int64)
    for each in values:
        counts += torch.bincount(each, minlength=bins)
    return counts


def _bin(counts: Tensor, kept: int) -> tuple[int, int]:
    """The bin that holds the `kept`-th largest value, and how many lie in bins above it."""
    from_top = counts.flip(0)
    reached = from_top.cumsum(0)
    place = int(torch.searchsorted(reached, kept))
    return len(counts) - 1 - place, int(reached[place] - from_top[place])
