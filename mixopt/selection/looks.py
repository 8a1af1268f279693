"""Looks: how often a study may be judged, and what each verdict may risk.

Judging again after a refusal gives chance another try. So a study fixes before its first verdict
how many looks it may take. With L looks planned, each may promote at an adjusted p-value of at most
(1 - confidence) / L. By the union bound the rate of false promotions over all looks is then at most
1 - the lowest confidence that was asked for, whatever changes between the looks: seeds,
candidates, objective or rule. Spending functions that spare more (1983 Lan and DeMets) need looks
at one growing sample, with nothing else changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

SPENDING = "equal"  # every look spends the same share


@dataclass(frozen=True)
class Look:
    """One verdict of a study.

    Attributes:
        basis: digest of what it follows from.
        number: of the look, from 1.
        planned: looks of the study.
        confidence: asked for at this look.
        level: adjusted p-value at which it promotes at most; 0 beyond the looks planned.
    """

    basis: str
    number: int
    planned: int
    confidence: float
    level: float


@dataclass(frozen=True)
class Looks:
    """All looks of a study so far.

    Attributes:
        planned: how many may promote.
        spending: how the error is shared out among them.
        taken: those that were begun, in order.
    """

    planned: int
    spending: str = SPENDING
    taken: tuple[Look, ...] = ()

    def at(self, basis: str, confidence: float) -> Look:
        """The look at `basis`: the one that was taken, or else the next."""
        known = next((look for look in self.taken if look.basis == basis), None)
        if known is not None:
            return known
        number = len(self.taken) + 1
        level = (1 - confidence) / self.planned if number <= self.planned else 0.0
        return Look(basis, number, self.planned, confidence, level)

    def take(self, look: Look) -> Looks:
        """With `look` taken; the same if it was."""
        return self if look in self.taken else replace(self, taken=(*self.taken, look))

    @property
    def left(self) -> int:
        """Looks that may still promote."""
        return max(0, self.planned - len(self.taken))

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Looks:
        """From what `to_json` gave."""
        taken = tuple(Look(**look) for look in values["taken"])
        return cls(values["planned"], values["spending"], taken)
