"""How the candidates of a selection differ metric by metric, whatever the objective weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.trials import Role, Trial
from mixopt.selection.results import Candidate
from mixopt.selection.trade_offs import TradeOff, differences
from mixopt.study.snapshot import Snapshot


@dataclass(frozen=True)
class Measured:
    """A metric over the selection's runs.

    Attributes:
        metric: its name.
        baseline: its mean on the baseline.
        differences: by candidate, the difference to the baseline.
        allowed: how much worse a guardrail lets it get; None without one.
        weighed: whether the objective weighs it.
    """

    metric: str
    baseline: float
    differences: dict[str, TradeOff]
    allowed: float | None = None
    weighed: bool = False


def measured_metrics(snapshot: Snapshot) -> list[Measured]:
    """Every metric of the selection's runs against the baseline, what the objective weighs first.

    Only the runs that the verdict is from count: those of its values. Empty before a verdict, and
    where the objective has other weights by now.
    """
    verdict = snapshot.verdict
    if verdict is None:
        return []
    runs = {c.name: _runs(snapshot, c) for c in verdict.candidates}
    trials = [t for own in runs.values() for t in own.values()]
    if not runs[verdict.baseline]:
        return []
    shared = set.intersection(*(set(t.metrics) for t in trials))
    names = [m for m in _ordered(snapshot, trials[0]) if m in shared]
    higher = better_higher(snapshot, names)
    seeds = max(len(own) for own in runs.values())

    def values(metric: str) -> dict[str, dict[int, float]]:
        return {
            name: {seed: t.metrics[metric] for seed, t in own.items()} for name, own in runs.items()
        }

    order = [verdict.baseline, *(n for n in runs if n != verdict.baseline)]
    found = differences({m: m in higher for m in names}, values, order, seeds)
    allowed = {it.metric: it.allowed for c in verdict.candidates for it in c.guarded}
    return [
        Measured(
            metric,
            float(np.mean([t.metrics[metric] for t in runs[verdict.baseline].values()])),
            {name: it for name, each in found.items() for it in each if it.metric == metric},
            allowed.get(metric),
            metric in snapshot.objective.weights,
        )
        for metric in names
    ]


def better_higher(snapshot: Snapshot, metrics: Sequence[str]) -> set[str]:
    """Those of `metrics` whose higher values are better.

    By the sign of its weight in the objective, else by its guardrail. Of the others shares of right
    answers are.
    """
    known = {name: name.startswith("accuracy/") for name in metrics}
    known |= {guard.metric: guard.higher for guard in snapshot.study.guarded()}
    known |= {name: weight < 0 for name, weight in snapshot.objective.weights.items()}
    return {name for name in metrics if known[name]}


def _runs(snapshot: Snapshot, candidate: Candidate) -> dict[int, Trial]:
    """The runs that the values of `candidate` are from, by seed."""
    values = set(candidate.values)
    return {
        t.spec.seed: t
        for t in snapshot.trials
        if t.spec.role is Role.SELECT
        and t.spec.mixture.same_as(candidate.mixture)
        and snapshot.objective.of_trial(t) in values
    }


def _ordered(snapshot: Snapshot, trial: Trial) -> Sequence[str]:
    """The objective's metrics, guarded ones, then all others in bits per byte or a task's score."""
    kept = [m for m in trial.metrics if m.startswith(("bpb/", "task/", "accuracy/"))]
    guarded = [g.metric for g in snapshot.study.guarded()]
    return list(dict.fromkeys([*snapshot.objective.metrics, *guarded, *kept]))
