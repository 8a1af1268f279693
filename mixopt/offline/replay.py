"""A search replayed on finished runs: what a proposer would have found, and at what cost.

A proposer sees the results of a few runs of a pool and selects the next ones, until the budget is
spent. Two regrets are reported: that of the best mixture *trained* so far, and that of the mixture
that the proposer *recommends* from the results so far.
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

FEWEST_START = 4  # runs of an initial design: one more than the fewest that can be fitted
START_SHARE = 0.25  # of the budget that goes to the initial design by default
ROUNDING = 1e-9  # a run may overdraw the budget by this share of it


@dataclass(frozen=True)
class Plan:
    """Budget and course of a search.

    Attributes:
        budget: total cost, in the pool's unit.
        initial: runs of the initial design, drawn at random; if None a quarter of the budget, at
            least 4 and at most two per domain. Free runs of the same fidelity count towards it.
        start: fidelity of the initial design. If None, the lowest for proposers whose
            surrogate learns from several fidelities, else the target.
        free: runs of the lowest fidelity whose results are free at the start.
        batch: runs selected at once.
        every: batches between two recommendations; there is always one at the end.
        until_best: whether the search ends once the best of the pool was trained.
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
                raise RunsError(f"{name} cannot be {getattr(self, name)}", where=name)


@dataclass(frozen=True)
class Point:
    """The state of a search after a run.

    Attributes:
        cost: spent so far.
        runs: observed so far, free ones included.
        trained: regret of the best mixture that was trained at the target; NaN before the first.
        recommended: regret of the recommended mixture; NaN where there was no recommendation.
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
        seed: of the initial design, the proposer and the surrogate.
        points: after the free runs, and after every run.
        until_best: cost until the best of the pool was trained; None if it never was.
        trained: the best candidate trained at the target; None if there is none.
        recommended: the candidate recommended at the end; None if no run was observed.
        order: candidates in the order in which they were observed.
        drawn: runs at the target that were drawn at random, because there were too few to fit the
            surrogate to.
        emptied: whether the search trained every target run before the budget was spent.
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

    With fewer than three runs at the target, some surrogates cannot be fitted: then the next run is
    drawn at random, and the best trained mixture is recommended. Proposers that start at the same
    fidelity with the same seed share their initial design.

    Args:
        pool: the finished runs.
        kind: the proposer's class; its space is the whole simplex, its fidelity the target.
        surrogate: makes a fresh, unfitted surrogate.
        plan: budget and course.
        seed: of everything that is random.

    Raises:
        RunsError: the budget buys no run, the plan has more free runs than the pool, or the
            proposer selects a run that it was not offered.
        SurrogateError: the surrogate cannot be fitted.

    Example:
        Draw eleven of eleven mixtures at random; the best has a loss of 2.

        >>> from mixopt.core.trial_table import TrialTable
        >>> from mixopt.search.proposers.random import Random
        >>> from mixopt.surrogates.regression.linear import Linear
        >>> web = np.linspace(0, 1, 11)
        >>> ones = np.ones(11)
        >>> table = TrialTable(
        ...     ("web", "code"), ("loss",), np.column_stack([web, 1 - web]),
        ...     2 + (web[:, None] - 0.7) ** 2, ones, ones, np.zeros(11, dtype=int),
        ... )
        >>> pool = Pool.of(table, Objective({"loss": 1.0}, prefix=""))
        >>> search = replay(pool, Random, Linear, Plan(budget=11), seed=0)
        >>> search.trained == pool.best, search.points[-1].trained, search.emptied
        (True, 0.0, True)
    """
    proposer = kind(
        space=pool.space,
        objective=pool.objective,
        fidelity=pool.target,
        surrogate=surrogate,
        seed=seed,
    )
    if not plan.free and not (pool.costs <= plan.budget * (1 + ROUNDING)).any():
        raise RunsError(
            f"a budget of {plan.budget:g} buys no run: the cheapest costs {pool.costs.min():g}",
            where="budget",
            hint="Raise the budget",
        )
    search = _Search(pool, proposer, plan, seed)
    search.give(plan.free)
    start = plan.start or _start(pool, proposer, surrogate())
    search.begin(start, _initial(pool, plan, start) if plan.initial is None else plan.initial)
    batches = 0
    while offered := search.affordable():
        batches += 1
        search.run(search.select(offered), recommend=batches % plan.every == 0)
    return search.ended()


class _Search:
    """Results and cost so far."""

    def __init__(self, pool: Pool, proposer: Proposer, plan: Plan, seed: int) -> None:
        self.pool, self.proposer, self.plan, self.seed = pool, proposer, plan, seed
        self.rng = np.random.default_rng([seed, len(pool.specs)])
        self.index = {spec: k for k, spec in enumerate(pool.specs)}
        self.trials: list[Trial] = []
        self.order: list[int] = []
        self.observed = np.zeros(len(pool.specs), dtype=bool)
        self.spent, self.drawn = 0.0, 0
        self.trained: int | None = None
        self.until_best: float | None = None
        self.recommended: int | None = None
        self.points: list[Point] = []
        self.recommended_at = -1  # number of trials at the last recommendation

    def give(self, n: int) -> None:
        """Observe `n` runs of the lowest fidelity at no cost."""
        there = self._at(self.pool.fidelities[0])
        if n > len(there):
            raise RunsError(
                f"{n} free runs were asked for; only {len(there)} have the lowest fidelity",
                where="free",
            )
        for candidate in self.rng.permutation(there)[:n]:
            self._observe(int(candidate), 0.0)
        if n:
            self._note(recommend=True)

    def begin(self, start: Fidelity, n: int) -> None:
        """Run the initial design: `n` runs at `start`, minus the free ones."""
        there = self._at(start)
        n -= int(self.observed[there].sum())
        left = there[~self.observed[there]]
        chosen = [int(c) for c in self.rng.permutation(left) if math.isfinite(self.pool.costs[c])]
        self.run(chosen[: max(0, n)], recommend=True)

    def affordable(self) -> list[int]:
        """Candidates that fit the budget; empty once every target run or the best was trained."""
        found = self.plan.until_best and self.until_best is not None
        if found or self.observed[self.pool.targets].all():
            return []
        left = self.plan.budget * (1 + ROUNDING) - self.spent
        return np.flatnonzero(~self.observed & (self.pool.costs <= left)).tolist()

    def select(self, offered: list[int]) -> list[int]:
        """The candidates that the proposer selects from `offered`."""
        specs = [self.pool.specs[candidate] for candidate in offered]
        try:
            chosen = self.proposer.select(self.trials, specs, self.plan.batch)
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
                f"the proposer selected {len(chosen)} runs that are not up to {self.plan.batch} "
                f"different ones of the {len(offered)} offered",
                where=self.proposer.name,
            )
        return candidates

    def run(self, candidates: Sequence[int], recommend: bool) -> None:
        """Observe `candidates` within the budget; recommend after the last if `recommend`."""
        left = self.plan.budget * (1 + ROUNDING)
        fitting: list[int] = []
        for candidate in candidates:
            if self.spent + self.pool.costs[[*fitting, candidate]].sum() <= left:
                fitting.append(candidate)
        for k, candidate in enumerate(fitting):
            self._observe(candidate, float(self.pool.costs[candidate]))
            self._note(recommend=recommend and k == len(fitting) - 1)

    def ended(self) -> Replay:
        """The finished search, after a last recommendation."""
        if self.recommended_at < len(self.trials):
            self.points.pop()  # the last one had no recommendation
            self._note(recommend=True)
        return Replay(
            proposer=self.proposer.name,
            seed=self.seed,
            points=tuple(self.points),
            until_best=self.until_best,
            trained=self.trained,
            recommended=self.recommended,
            order=tuple(self.order),
            drawn=self.drawn,
            emptied=bool(self.observed[self.pool.targets].all()),
        )

    def _observe(self, candidate: int, cost: float) -> None:
        pool = self.pool
        self.spent += cost
        self.observed[candidate] = True
        self.order.append(candidate)
        self.trials.append(pool.trial(len(self.trials), candidate))
        if pool.specs[candidate].fidelity != pool.target:
            return
        if self.trained is None or pool.values[candidate] < pool.values[self.trained]:
            self.trained = candidate
        if self.until_best is None and pool.values[candidate] == pool.values[pool.best]:
            self.until_best = self.spent

    def _note(self, recommend: bool) -> None:
        if recommend:
            self._recommend()
        recommended = self.pool.regret(self.recommended) if recommend else math.nan
        trained = self.pool.regret(self.trained)
        self.points.append(Point(self.spent, len(self.trials), trained, recommended))

    def _recommend(self) -> None:
        specs = [self.pool.specs[candidate] for candidate in self.pool.targets]
        self.recommended_at = len(self.trials)
        try:
            self.recommended = self.index[self.proposer.recommend(self.trials, specs)]
        except SurrogateError:
            if self._can_be_fitted():
                raise
            self.recommended = self.trained

    def _can_be_fitted(self) -> bool:
        return int(self.observed[self.pool.targets].sum()) >= FEWEST_TRIALS

    def _at(self, fidelity: Fidelity) -> np.ndarray:
        return np.flatnonzero([spec.fidelity == fidelity for spec in self.pool.specs])


def _start(pool: Pool, proposer: Proposer, surrogate: Surrogate) -> Fidelity:
    """The fidelity of the initial design: the lowest if the surrogate learns from several."""
    return pool.fidelities[0] if proposer.informed and surrogate.multi_fidelity else pool.target


def _initial(pool: Pool, plan: Plan, start: Fidelity) -> int:
    costs = pool.costs[[spec.fidelity == start for spec in pool.specs]]
    known = costs[np.isfinite(costs)]
    if not len(known):
        return 0
    share = START_SHARE * plan.budget / max(float(known.mean()), 1e-300)
    return max(FEWEST_START, round(min(share, 2 * len(pool.domains))))
