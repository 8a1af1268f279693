"""What a round of the search was asked for with, as the ledger keeps it.

Surrogate, proposer, batch and the objective's weights may change between rounds. A round is
recorded whole before its first trial is added: one that was interrupted asks for the same trials,
whatever the study file says by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixopt.core.trials import TrialSpec


@dataclass(frozen=True, slots=True)
class Round:
    """A round of proposals.

    Attributes:
        number: 1, 2, …
        proposer: registry name of what chose its mixtures.
        surrogate: registry name of what modelled the metrics for it, also where the study asks for
            `auto`; None where the proposer asked for none.
        weights: metric → weight in the objective (`Objective.weights`).
        specs: the trials that it asked for.
    """

    number: int
    proposer: str
    surrogate: str | None
    weights: Mapping[str, float]
    specs: Sequence[TrialSpec]

    def to_json(self) -> dict[str, Any]:
        """The round as JSON-able values; `from_json` gives it back exactly."""
        return {
            "number": self.number,
            "proposer": self.proposer,
            "surrogate": self.surrogate,
            "weights": dict(self.weights),
            "specs": [spec.to_json() for spec in self.specs],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Round:
        """The round that `to_json` described."""
        return cls(
            number=int(values["number"]),
            proposer=str(values["proposer"]),
            surrogate=values["surrogate"],
            weights=dict(values["weights"]),
            specs=tuple(TrialSpec.from_json(spec) for spec in values["specs"]),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """What a verdict of the gate followed from.

    Attributes:
        look: number of the look, from 1.
        rule: how finalists were run.
        seeds: fresh ones per candidate that were asked for.
        confidence: asked for.
        surrogate: registry name of what modelled the metrics.
        weights: metric → weight in the objective (`Objective.weights`).
    """

    look: int
    rule: str
    seeds: int
    confidence: float
    surrogate: str
    weights: Mapping[str, float]
