"""All replays of one call, and the regrets that are read off them."""

from __future__ import annotations

from dataclasses import dataclass

from mixopt.offline.pool import Pool
from mixopt.offline.replay import Plan, Replay
from mixopt.offline.replay_summary import Curve, Summary, cost_grid, curve, summary

RUNS = "runs"  # the unit of costs where no others are given
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

    @property
    def best(self) -> float:
        """The best mixture's objective, in the direction that people read."""
        return self.pool.objective.sign * float(self.pool.values[self.pool.best])

    @property
    def budget(self) -> str:
        """What may be spent, with its unit."""
        return self.cost(self.plan.budget)

    def cost(self, amount: float) -> str:
        """An amount with the unit of costs."""
        if self.cost_unit == RUNS:
            return f"{amount:.4g} {RUNS}"
        return f"{amount:.4g} ({self.cost_unit})"

    def summaries(self) -> list[Summary]:
        """One per proposer, in the order of the command line."""
        return [summary(found) for found in self.replays.values()]

    def curves(self, what: str) -> dict[str, Curve]:
        """Regret of what was `trained` or `recommended`, by proposer, on common costs."""
        grid = cost_grid([replay for found in self.replays.values() for replay in found])
        return {name: curve(found, what, grid) for name, found in self.replays.items()}


def regret_words(targets: int) -> str:
    """What a regret is, of so many mixtures at the target: the same on every page."""
    return (
        "Regret: by how much the objective is worse than that of the best of "
        f"{targets} mixtures at the target"
    )
