"""Finished runs as a pool for a replayed search: one candidate per mixture and fidelity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.offline.as_trials import spec_of
from mixopt.offline.fidelity_words import fidelity_text


@dataclass(frozen=True)
class Pool:
    """Finished runs that a search selects from: one candidate per mixture and fidelity.

    Attributes:
        domains: m names.
        specs: k candidates, in the order of the file.
        metrics: (k) measured metrics, averaged over repeats.
        values: (k,) the objective of each; NaN where it was not measured, away from the target.
        costs: (k,) cost of a candidate: the sum over its repeats. Infinite for runs that are only
            available as free ones.
        names: (k) name in the file (of its first repeat).
        objective: lower is better.
        target: the fidelity at which the best mixture is sought.
        priced: whether costs were given; else a run costs its parameters x tokens in units of a
            run at the target: at one fidelity the budget is a number of runs.
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
        """The pool of `table`'s runs, by their last rows.

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
                f"{len(pool.targets)} mixtures were run at {fidelity_text(pool.target)} with all "
                "metrics of the objective; a replay needs 2",
                hint=f"Choose another objective or target: there are {_sizes(pool)}",
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
        """The whole simplex; the natural mixture is the pool's mean."""
        weights = np.array([spec.mixture.weights for spec in self.specs])
        return MixtureSpace(self.domains, Mixture.from_array(self.domains, weights.mean(axis=0)))

    def trial(self, number: int, candidate: int) -> Trial:
        """The candidate as a complete trial with this number."""
        spec = self.specs[candidate]
        seconds = float(self.costs[candidate]) if self.priced else 0.0
        cost = Cost(spec.fidelity.tokens, seconds if math.isfinite(seconds) else 0.0)
        result = TrialResult(self.metrics[candidate], (), cost)
        return Trial(number, spec, State.COMPLETE, result)


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
            raise RunsError(f"a cost of {cost} for run {name}", hint="Give every run a cost ≥ 0")


def _notes(lost: int, rows: int, specs: int) -> tuple[str, ...]:
    notes = []
    if lost:
        notes.append(f"{lost} runs at the target lack a metric of the objective and are left out")
    if specs < rows:
        notes.append(f"{rows - specs} runs repeat a mixture: averaged, their costs added")
    return tuple(notes)


def _sizes(pool: Pool) -> str:
    counts = {f: sum(spec.fidelity == f for spec in pool.specs) for f in pool.fidelities}
    return ", ".join(f"{count} mixtures at {fidelity_text(f)}" for f, count in counts.items())
