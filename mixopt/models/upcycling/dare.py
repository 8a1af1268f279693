"""DARE (2311.03099): drop changes at random, rescale the rest, average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.merges import Merge


@dataclass(frozen=True)
class Dare(Merge):
    """seed + scale · mean over the models of mask · change / (1 - drop).

    A model's change is its tensor less the seed's; the mask is 1 with probability 1 - drop, drawn
    for each weight and model. Without drops, at scale 1, it is the average.

    Attributes:
        drop: probability that a change is dropped. The paper takes 0.9 for fine-tuned models, whose
            changes are small; after further pre-training they are not.
        scale: factor of the merged change; the number of models gives the sum of the changes.
    """

    drop: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise StudyError(
                f"must be at least 0 and below 1, is {self.drop}", where="merge_settings.drop"
            )

    @property
    def by_rows(self) -> bool:
        """Yes."""
        return True

    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See the class."""
        start = seed.float()
        total = torch.zeros_like(start)
        for model in models:
            kept = torch.rand(start.shape, generator=random) >= self.drop
            total += torch.where(kept, model.float() - start, 0.0)
        return start + total * (self.scale / (1 - self.drop) / len(models))
