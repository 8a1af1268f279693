"""All replays of one call, and the regrets that are read off them."""

from __future__ import annotations

from dataclasses import dataclass

from mixopt.offline.pool import Pool
from mixopt.offline.replay import Plan, Replay
from mixopt.offline.replay_summary import Curve, Summary, cost_grid, curve, summary

TRAINED, RECOMMENDED = "trained", "recommended"  # mixtures that a regret is of


@dataclass(frozen=True)
class Replayed:
    """All replays of one call."""

    pool: Pool
    plan: Plan
    surrogate: str
    cost_unit: str
    notes: tuple[str, ...]
    replays: dict[str, list[Replay]]

    def summaries(self) -> list[Summary]:
        """One per proposer, in the order of the command line."""
        return [summary(found) for found in self.replays.values()]

    def curves(self, what: str) -> dict[str, Curve]:
        """Regret of what was `trained` or `recommended`, by proposer, on common costs."""
        grid = cost_grid([replay for found in self.replays.values() for replay in found])
        return {name: curve(found, what, grid) for name, found in self.replays.items()}
