"""A search replayed on finished runs: what a proposer would have found, and at what cost.

Every run of a pool is known; a proposer is shown a few and says which to look at next, until the
budget is spent. Two things are told apart, which reports of searches often mix up: the best mixture
that was *trained* by then, and the one that the proposer would *recommend* on what it had seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mixopt.errors import RunsError, SurrogateError
from mixopt.finished import spec_of
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposers.base import Proposer
from mixopt.space import MixtureSpace
from mixopt.surrogates.base import FEWEST_TRIALS, Surrogate
from mixopt.surrogates.remembered import remembered
from mixopt.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec, TrialTable

FEWEST_START = 4  # runs of a first swarm: one more than the fewest that can be fitted
START_SHARE = 0.25  # of the budget that goes to the first swarm if nothing else is asked for
ROUNDING = 1e-9  # a run may overdraw the budget by this share of it


@dataclass(frozen=True)
class Pool:
    """Finished runs that a search may look at: one candidate per mixture and fidelity.

    Attributes:
        domains: m names.
        specs: k candidates, in the order of the file.
        metrics: (k) the measured metrics of each, averaged over its repeats.
        values: (k,) the objective of each; NaN where it was not measured, away from the target.
        costs: (k,) what it costs to look: of all its repeats together. Infinite for runs that can
            only be given for nothing.
        names: (k) what the file calls each (its first repeat).
        objective: what is minimised.
        target: the fidelity at which the best mixture is sought.
        priced: whether costs were given; else a run costs its parameters x tokens in units of a
            run at the target, so that at one fidelity a budget is a number of runs.
        notes: what was left out or merged, a sentence each.
    """

    domains: tuple[str, ...]
    specs: tuple[TrialSpec, ...]
    metrics: tuple[Mapping[str, float], ...]
    values: np.ndarray
    costs: np.ndarray
    names: tuple[str, ...]
    objective: Objective
    target: Fidelity
    priced: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        table: TrialTable,
        objective: Objective,
        target: Fidelity | None = None,
        costs: np.ndarray | None = None,
        names: Sequence[str] | None = None,
    ) -> Pool:
        """The pool of `table`'s runs, each as it ended.

        Args:
            table: n rows; of a run's curve only the last one counts.
            objective: over the table's metrics.
            target: the most expensive fidelity (parameters x tokens) if not given.
            costs: (n,) cost of each run, in any one unit; see `priced` if not given.
            names: n names of the runs; their row numbers if not given.

        Raises:
            RunsError: fewer than two mixtures with the objective at the target, or a cost is
                negative or not a number.
        """
        rows = _last_rows(table)
        target = target or table.select(rows).fidelities[-1]
        values = objective.of_table(table)
        at_target = table.at(target)
        lost = [row for row in rows if at_target[row] and not np.isfinite(values[row])]
        rows = np.array([row for row in rows if row not in set(lost)], dtype=int)
        price = _relative(table, target) if costs is None else np.asarray(costs, dtype=float)
        _check_costs(price[rows], names, rows)
        candidates: dict[tuple[Mixture, int, int], list[int]] = {}
        for row in rows:
            spec = spec_of(table, row)
            key = (spec.mixture, spec.fidelity.params, spec.fidelity.tokens)
            candidates.setdefault(key, []).append(int(row))
        specs, metrics, total = [], [], []
        for (mixture, params, tokens), own in candidates.items():
            specs.append(TrialSpec(mixture, Fidelity("", params, tokens), seed=0))
            metrics.append(_mean_metrics(table, own))
            total.append(price[own].sum())
        pool = cls(
            domains=table.domains,
            specs=tuple(specs),
            metrics=tuple(metrics),
            values=np.array([_objective(objective, each) for each in metrics]),
            costs=np.array(total),
            names=tuple(
                str(own[0]) if names is None else names[own[0]] for own in candidates.values()
            ),
            objective=objective,
            target=Fidelity("", target.params, target.tokens),
            priced=costs is not None,
            notes=_notes(len(lost), len(rows), len(specs)),
        )
        if len(pool.targets) < 2:
            raise RunsError(
                f"{len(pool.targets)} mixtures were run at {target.params:g} parameters and "
                f"{target.tokens:g} tokens with all metrics of the objective",
                mend="A replay needs at least 2; name another target fidelity or objective",
            )
        return pool

    @cached_property
    def targets(self) -> np.ndarray:
        """Indices of the candidates at the target fidelity."""
        return np.flatnonzero([spec.fidelity == self.target for spec in self.specs])

    @cached_property
    def fidelities(self) -> list[Fidelity]:
        """The distinct fidelities, cheapest (parameters x tokens) first."""
        kinds = {spec.fidelity for spec in self.specs}
        return sorted(kinds, key=lambda f: (f.params * f.tokens, f.params))

    @cached_property
    def best(self) -> int:
        """The candidate at the target with the least objective (the first of equals)."""
        return int(self.targets[np.argmin(self.values[self.targets])])

    def regret(self, candidate: int | None) -> float:
        """By how much a target candidate's objective exceeds the best; NaN for None."""
        return (
            math.nan
            if candidate is None
            else float(self.values[candidate] - self.values[self.best])
        )

    @cached_property
    def space(self) -> MixtureSpace:
        """The whole simplex, natural where the pool has its mean."""
        weights = np.array([spec.mixture.weights for spec in self.specs])
        return MixtureSpace(self.domains, Mixture.from_array(self.domains, weights.mean(axis=0)))

    def trial(self, number: int, candidate: int) -> Trial:
        """The candidate as a complete trial, the `number`-th that was looked at."""
        spec = self.specs[candidate]
        seconds = float(self.costs[candidate]) if self.priced else 0.0
        cost = Cost(spec.fidelity.tokens, seconds if math.isfinite(seconds) else 0.0)
        result = TrialResult(self.metrics[candidate], (), cost)
        return Trial(number, spec, State.COMPLETE, result)


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
    """

    budget: float
    initial: int | None = None
    start: Fidelity | None = None
    free: int = 0
    batch: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        wrong = {
            "budget": not self.budget > 0,
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
        """Candidates that may be looked at next; none once every target run is known."""
        if self.known[self.pool.targets].all():
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


def _last_rows(table: TrialTable) -> np.ndarray:
    """Rows at which the table's runs end, in file order."""
    order = np.lexsort((table.tokens, table.runs))
    last = np.append(table.runs[order][1:] != table.runs[order][:-1], True)
    return np.sort(order[last])


def _relative(table: TrialTable, target: Fidelity) -> np.ndarray:
    return np.asarray(table.params * table.tokens / (float(target.params) * target.tokens))


def _mean_metrics(table: TrialTable, rows: list[int]) -> dict[str, float]:
    found = {}
    for j, metric in enumerate(table.metrics):
        values = table.values[rows, j]
        if np.isfinite(values).any():
            found[metric] = float(values[np.isfinite(values)].mean())
    return found


def _objective(objective: Objective, metrics: Mapping[str, float]) -> float:
    whole = all(name in metrics for name in objective.metrics)
    return objective.value(metrics) if whole else math.nan


def _check_costs(costs: np.ndarray, names: Sequence[str] | None, rows: np.ndarray) -> None:
    for cost, row in zip(costs, rows, strict=True):
        if not cost >= 0:
            name: Any = row if names is None else names[row]
            raise RunsError(f"a cost of {cost} for run {name}", mend="Give every run a cost ≥ 0")


def _notes(lost: int, rows: int, specs: int) -> tuple[str, ...]:
    notes = []
    if lost:
        notes.append(f"{lost} runs at the target lack a metric of the objective: left out")
    if specs < rows:
        notes.append(f"{rows - specs} runs repeat a mixture: averaged, at the cost of all of them")
    return tuple(notes)
