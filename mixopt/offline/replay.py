"""A search replayed on finished runs: what a proposer would have found, and at what cost.

Every run of a pool is known; a proposer is shown a few and says which to look at next, until the
budget is spent. Two things are told apart, which reports of searches often mix up: the best mixture
that was *trained* by then, and the one that the proposer would *recommend* on what it had seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixopt.core.errors import RunsError, SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Trial
from mixopt.offline.pool import Pool
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates.base import FEWEST_TRIALS, Surrogate
from mixopt.surrogates.remembered import remembered

FEWEST_START = 4  # runs of a first swarm: one more than the fewest that can be fitted
START_SHARE = 0.25  # of the budget that goes to the first swarm if nothing else is asked for
ROUNDING = 1e-9  # a run may overdraw the budget by this share of it


@dataclass(frozen=True)
class Plan:
    """How a search goes.

    Attributes:
        budget: what may be spent in all, in the pool's unit of cost.
        initial: runs of the first swarm, drawn at random; a quarter of the budget if None, but at
            least 4 and at most two per domain. Free runs of the same fidelity count towards it.
        start: fidelity of the first swarm. If None the cheapest for proposers whose surrogate
            learns from several, else the target.
        free: runs of the cheapest fidelity that are given for nothing before it begins.
        batch: runs that are picked at once.
        every: batches between two recommendations; the last one is always asked for.
        until_best: whether it ends as soon as the best of the pool was trained.
    """

    budget: float
    initial: int | None = None
    start: Fidelity | None = None
    free: int = 0
    batch: int = 1
    every: int = 1
    until_best: bool = False

    def __post_init__(self) -> None:
        wrong = {
            "budget": not 0 < self.budget < math.inf,
            "initial": self.initial is not None and self.initial < 0,
            "free": self.free < 0,
            "batch": self.batch < 1,
            "every": self.every < 1,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise RunsError(f"{getattr(self, name)} is no {name}", where=name)


@dataclass(frozen=True)
class Point:
    """Where a search stands after a run.

    Attributes:
        cost: spent so far.
        runs: looked at so far, free ones included.
        trained: regret of the best mixture that was trained at the target; NaN before the first.
        recommended: regret of the recommended mixture; NaN where it was not asked for.
    """

    cost: float
    runs: int
    trained: float
    recommended: float


@dataclass(frozen=True)
class Replay:
    """One search of one proposer.

    Attributes:
        proposer: its name.
        seed: of the first swarm, the proposer and the surrogate.
        points: after the free runs, and after every run.
        until_best: cost until the best of the pool was trained; None if it never was.
        trained: candidate that is the best trained one in the end; None if none was.
        recommended: candidate that is recommended in the end; None if there was nothing to go by.
        order: candidates in the order in which they were looked at.
        drawn: runs at the target that were drawn at random, because there were too few to fit the
            surrogate to.
        emptied: whether it ended because every target run had been trained, before the budget.
    """

    proposer: str
    seed: int
    points: tuple[Point, ...]
    until_best: float | None
    trained: int | None
    recommended: int | None
    order: tuple[int, ...]
    drawn: int
    emptied: bool


class MakesProposer(Protocol):
    """A `Proposer` class, or anything that is called like one."""

    def __call__(
        self,
        *,
        space: MixtureSpace,
        objective: Objective,
        fidelity: Fidelity,
        surrogate: Callable[[], Surrogate],
        seed: int,
    ) -> Proposer:
        """A proposer of these settings."""


def replay(
    pool: Pool, kind: MakesProposer, surrogate: Callable[[], Surrogate], plan: Plan, seed: int
) -> Replay:
    """Let a proposer search `pool`. The same arguments give the same search.

    Until three runs at the target are known, a surrogate may not be fitted: then the next one is
    drawn at random, and the best trained one is recommended. First swarms are common to all
    proposers that start at the same fidelity with the same seed.

    Args:
        pool: the finished runs.
        kind: the proposer's class; it is given the whole simplex and the target fidelity.
        surrogate: makes a fresh, unfitted surrogate.
        plan: budget and course.
        seed: of everything that is random.

    Raises:
        RunsError: the budget buys no run, there are fewer runs than the plan gives for free, or the
            proposer picks what it was not offered.
        SurrogateError: the surrogate cannot be fitted to what is known.
    """
    proposer = kind(
        space=pool.space,
        objective=pool.objective,
        fidelity=pool.target,
        surrogate=remembered(surrogate),
        seed=seed,
    )
    if not plan.free and not (pool.costs <= plan.budget * (1 + ROUNDING)).any():
        raise RunsError(
            f"a budget of {plan.budget:g} buys no run, the cheapest costs {pool.costs.min():g}",
            where="budget",
        )
    search = _Search(pool, proposer, plan, seed)
    search.give(plan.free)
    start = plan.start or _start(pool, proposer, surrogate())
    search.begin(start, _initial(pool, plan, start) if plan.initial is None else plan.initial)
    batches = 0
    while offered := search.affordable():
        batches += 1
        search.look(search.pick(offered), ask=batches % plan.every == 0)
    return search.ended()


class _Search:
    """What is known and spent so far."""

    def __init__(self, pool: Pool, proposer: Proposer, plan: Plan, seed: int) -> None:
        self.pool, self.proposer, self.plan, self.seed = pool, proposer, plan, seed
        self.rng = np.random.default_rng([seed, len(pool.specs)])
        self.index = {spec: k for k, spec in enumerate(pool.specs)}
        self.trials: list[Trial] = []
        self.order: list[int] = []
        self.known = np.zeros(len(pool.specs), dtype=bool)
        self.spent, self.drawn = 0.0, 0
        self.trained: int | None = None
        self.until_best: float | None = None
        self.recommended: int | None = None
        self.points: list[Point] = []
        self.asked_at = -1  # number of trials at the last recommendation

    def give(self, n: int) -> None:
        """Show `n` runs of the cheapest fidelity for nothing."""
        there = self._at(self.pool.fidelities[0])
        if n > len(there):
            raise RunsError(
                f"{n} free runs are asked for, but only {len(there)} are of the cheapest fidelity",
                where="free",
            )
        for candidate in self.rng.permutation(there)[:n]:
            self._reveal(int(candidate), 0.0)
        if n:
            self._note(ask=True)

    def begin(self, start: Fidelity, n: int) -> None:
        """The first swarm: `n` runs at `start`, less those that were free."""
        there = self._at(start)
        n -= int(self.known[there].sum())
        left = there[~self.known[there]]
        chosen = [int(c) for c in self.rng.permutation(left) if math.isfinite(self.pool.costs[c])]
        self.look(chosen[: max(0, n)], ask=True)

    def affordable(self) -> list[int]:
        """Candidates that may be looked at next; none once nothing is left to find."""
        found = self.plan.until_best and self.until_best is not None
        if found or self.known[self.pool.targets].all():
            return []
        left = self.plan.budget * (1 + ROUNDING) - self.spent
        return np.flatnonzero(~self.known & (self.pool.costs <= left)).tolist()

    def pick(self, offered: list[int]) -> list[int]:
        """What the proposer wants to look at next."""
        specs = [self.pool.specs[candidate] for candidate in offered]
        try:
            chosen = self.proposer.pick(self.trials, specs, self.plan.batch)
        except SurrogateError:
            targets = [c for c in offered if self.pool.specs[c].fidelity == self.pool.target]
            if self._can_be_fitted() or not targets:
                raise
            self.drawn += 1
            return [int(self.rng.choice(targets))]
        candidates = [self.index.get(spec, -1) for spec in chosen]
        if (
            not candidates
            or len(set(candidates)) < len(candidates)
            or not {*candidates} <= {*offered}
        ):
            raise RunsError(
                f"the proposer picked {len(chosen)} runs that are not {self.plan.batch} different "
                f"ones of the {len(offered)} offered",
                where=self.proposer.name,
            )
        return candidates

    def look(self, candidates: Sequence[int], ask: bool) -> None:
        """Run `candidates` as far as the budget goes; `ask` for a recommendation after the last."""
        left = self.plan.budget * (1 + ROUNDING)
        fitting: list[int] = []
        for candidate in candidates:
            if self.spent + self.pool.costs[[*fitting, candidate]].sum() <= left:
                fitting.append(candidate)
        for k, candidate in enumerate(fitting):
            self._reveal(candidate, float(self.pool.costs[candidate]))
            self._note(ask=ask and k == len(fitting) - 1)

    def ended(self) -> Replay:
        """The search as a whole, after a last recommendation."""
        if self.asked_at < len(self.trials):
            self.points.pop()  # the last one did not ask for a recommendation
            self._note(ask=True)
        return Replay(
            proposer=self.proposer.name,
            seed=self.seed,
            points=tuple(self.points),
            until_best=self.until_best,
            trained=self.trained,
            recommended=self.recommended,
            order=tuple(self.order),
            drawn=self.drawn,
            emptied=bool(self.known[self.pool.targets].all()),
        )

    def _reveal(self, candidate: int, cost: float) -> None:
        pool = self.pool
        self.spent += cost
        self.known[candidate] = True
        self.order.append(candidate)
        self.trials.append(pool.trial(len(self.trials), candidate))
        if pool.specs[candidate].fidelity != pool.target:
            return
        if self.trained is None or pool.values[candidate] < pool.values[self.trained]:
            self.trained = candidate
        if self.until_best is None and pool.values[candidate] == pool.values[pool.best]:
            self.until_best = self.spent

    def _note(self, ask: bool) -> None:
        if ask:
            self._recommend()
        said = self.pool.regret(self.recommended) if ask else math.nan
        trained = self.pool.regret(self.trained)
        self.points.append(Point(self.spent, len(self.trials), trained, said))

    def _recommend(self) -> None:
        specs = [self.pool.specs[candidate] for candidate in self.pool.targets]
        self.asked_at = len(self.trials)
        try:
            self.recommended = self.index[self.proposer.recommend(self.trials, specs)]
        except SurrogateError:
            if self._can_be_fitted():
                raise
            self.recommended = self.trained

    def _can_be_fitted(self) -> bool:
        return int(self.known[self.pool.targets].sum()) >= FEWEST_TRIALS

    def _at(self, fidelity: Fidelity) -> np.ndarray:
        return np.flatnonzero([spec.fidelity == fidelity for spec in self.pool.specs])


def _start(pool: Pool, proposer: Proposer, surrogate: Surrogate) -> Fidelity:
    """Where the first swarm is of most use to this proposer."""
    return pool.fidelities[0] if proposer.informed and surrogate.multi_fidelity else pool.target


def _initial(pool: Pool, plan: Plan, start: Fidelity) -> int:
    costs = pool.costs[[spec.fidelity == start for spec in pool.specs]]
    known = costs[np.isfinite(costs)]
    if not len(known):
        return 0
    share = START_SHARE * plan.budget / max(float(known.mean()), 1e-300)
    return max(FEWEST_START, round(min(share, 2 * len(pool.domains))))
