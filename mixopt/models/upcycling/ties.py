"""TIES (2306.01708): trim small changes, elect a sign, average what agrees with it.

Shapes: n models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.merges import Merge


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

    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See the class."""
        start = seed.float()
        # two passes over the models: all changes at once would take n times the memory
        elected = torch.zeros_like(start)
        for model in models:
            elected += self._trimmed(model, start)
        elected.sign_()
        total, agreeing = torch.zeros_like(start), torch.zeros_like(start)
        for model in models:
            change = self._trimmed(model, start)
            agrees = (change.sign() == elected) & (elected != 0)
            total += torch.where(agrees, change, 0.0)
            agreeing += agrees
        return start + self.scale * total / agreeing.clamp_min(1)

    def _trimmed(self, model: Tensor, start: Tensor) -> Tensor:
        change = model.float() - start
        sizes = change.abs().flatten()
        kept = max(1, round(self.density * sizes.numel()))
        threshold = sizes.kthvalue(sizes.numel() - kept + 1).values
        return torch.where(change.abs() >= threshold, change, 0.0)
