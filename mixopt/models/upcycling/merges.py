"""How what is no expert is merged over several models: attention, norms, embeddings.

Shapes: n models, a tensor of each of the same shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixopt.core.part_settings import build_settings
from mixopt.core.registry import resolve
from mixopt.models.upcycling import MERGES

VALUES_AT_ONCE = 2**20  # 4 MB in fp32; the embedding of a 1B model takes 1 GB


@dataclass(frozen=True)
class Merge(ABC):
    """Merges one tensor over models, in fp32 whatever the models' dtype. Fields are settings."""

    @property
    def by_rows(self) -> bool:
        """Whether each row can be merged without the others, which saves memory."""
        return False

    def for_tensor(self, seed: Tensor, models: Sequence[Tensor]) -> Merge:
        """The merge of this one tensor: what hangs on all of its values is settled here.

        Args:
            seed: as `merge` takes it.
            models: as `merge` takes them.
        """
        return self

    @abstractmethod
    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """The merged tensor, fp32.

        Args:
            seed: of the model that the others were branched from.
            models: n tensors; the seed's is among them where the seed takes part.
            random: what is drawn, is drawn from it.
        """


@dataclass(frozen=True)
class Average(Merge):
    """The mean over the models (Branch-Train-MiX, 2403.07816)."""

    @property
    def by_rows(self) -> bool:
        """Yes."""
        return True

    def merge(self, seed: Tensor, models: Sequence[Tensor], random: torch.Generator) -> Tensor:
        """See the class."""
        return torch.stack([tensor.float() for tensor in models]).mean(0)


def merge_class(name: str) -> type[Merge]:
    """The merge of that registry name, or of a user's `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `Merge`.
    """
    return resolve("merge", name, MERGES, Merge)  # type: ignore[type-abstract]


def make_merge(name: str, settings: Mapping[str, Any] | None = None) -> Merge:
    """The merge of that registry name, or `package.module:Name`, with its settings.

    Raises:
        StudyError: there is no such merge, or it has no such setting.
    """
    return build_settings(merge_class(name), settings or {}, "merge", "merge_settings")
