"""Routers whose rows are embeddings of the experts' domains, as FlexOlmo's and Nexus' begin.

Shapes: E experts, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.hidden_states import LayerStates
from mixopt.models.upcycling.router_starts import RouterStart, expert_means


@dataclass(frozen=True)
class DomainEmbedding(RouterStart):
    """Rows e - mean of e over the experts, all scaled alike.

    e is the mean of the states that the block's router reads on the expert's sample, or its vector
    in a file. What all rows have in common changes no choice and is taken off. The scale gives the
    logits of the samples' tokens the root mean square `spread`; with vectors it is that of states
    whose numbers are independent and of unit variance.

    Attributes:
        spread: of the logits, in nats.
        vectors: JSON file of expert name → D numbers, in place of the mean states; the same rows
            in every block. The seed's are the mean of the others, unless given.
    """

    spread: float = 1.0
    vectors: str = ""

    def __post_init__(self) -> None:
        if self.spread <= 0:
            raise StudyError(f"must be above 0, is {self.spread}", where="router_settings.spread")

    @property
    def needs_samples(self) -> bool:
        """Unless vectors are given."""
        return not self.vectors

    def start(
        self,
        sources: Sequence[str],
        width: int,
        random: torch.Generator,
        states: LayerStates | None,
    ) -> Tensor:
        """See the class."""
        if self.vectors:
            states = None
            rows_ED = self._read(sources, width)
        else:
            rows_ED = expert_means(sources, states)
        rows_ED = rows_ED - rows_ED.mean(0)
        if states is None:
            squares_E = rows_ED.square().sum(1)
        else:  # the mean of (x · row)², over tokens and samples
            squares_E = ((rows_ED @ states.moments) * rows_ED).sum(1) / len(states.means)
        size = squares_E.mean().sqrt()
        if not size > 0:
            raise StudyError(
                "the experts' domains have equal embeddings",
                where="router",
                hint="Give samples of different text, or choose another router start",
            )
        return rows_ED * (self.spread / size)

    def _read(self, sources: Sequence[str], width: int) -> Tensor:
        where = "router_settings.vectors"
        try:
            values = json.loads(Path(self.vectors).read_bytes())
            rows = {
                name: torch.tensor([float(each) for each in values[name]])
                for name in sources
                if name != SEED or SEED in values
            }
        except OSError as error:
            raise StudyError(
                f"{self.vectors} cannot be read: {error.strerror}", where=where
            ) from error
        except KeyError as error:
            raise StudyError(f"{self.vectors} has no vector {error}", where=where) from error
        except (TypeError, ValueError) as error:
            raise StudyError(
                f"{self.vectors} is no JSON object of lists of numbers: {error}", where=where
            ) from error
        if wrong := [len(row) for row in rows.values() if len(row) != width]:
            raise StudyError(
                f"{self.vectors} has vectors of {wrong[0]} numbers, and the router reads {width}",
                where=where,
                hint="Project them to the model's width, or leave `vectors` out",
            )
        mean = torch.stack(list(rows.values())).mean(0)
        return torch.stack([rows.get(name, mean) for name in sources])
