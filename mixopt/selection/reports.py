"""What the runs of a selection show of each candidate: difference, interval, p-value, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixopt.core.trials import Trial
from mixopt.selection.comparison import compare
from mixopt.selection.guarded import guarded
from mixopt.selection.paired import gaps, half_interval, one_sided_p, silent
from mixopt.selection.results import Candidate
from mixopt.selection.runs import Selection
from mixopt.selection.trade_offs import trade_offs


def reports(selection: Selection, trials: Sequence[Trial]) -> dict[str, Candidate]:
    """What the runs so far show of each candidate, by name, the baseline first."""
    values, pulls = selection.values(trials), selection.pulls(trials)
    found = {name: _alone(selection, name, values, pulls) for name in selection.rows}
    unseeded = silent(values)
    found = _in_each_metric(selection, trials, found, unseeded=unseeded)
    if unseeded:  # equal runs are one run: no interval, no p-value
        return {
            name: replace(
                report, difference_low=None, difference_high=None, p=None, adjusted_p=None
            )
            for name, report in found.items()
        }
    layout = objective_layout(selection, values)
    return found if layout is None else _jointly(layout, selection.rows, found)


def objective_layout(
    selection: Selection, values: Mapping[str, Mapping[int, float]]
) -> np.ndarray | None:
    """Objective (candidates, seeds), the baseline's first; None where a run is missing."""
    runs = [values[name] for name in selection.rows]
    if len(runs) < 2 or any(len(row) < len(selection.seeds) for row in runs):
        return None
    return np.array([[row[seed] for seed in selection.seeds] for row in runs])


def _alone(
    selection: Selection,
    name: str,
    values: Mapping[str, Mapping[int, float]],
    pulls: Sequence[Trial],
) -> Candidate:
    """A candidate beside the baseline: Student's interval, and Bonferroni's p-value."""
    mine, base = values[name], values[selection.baseline]
    costs = [t.result.cost for t in pulls if t.spec.candidate == name and t.result is not None]
    runs, differences = np.array(list(mine.values())), gaps(mine, base)
    difference = float(differences.mean()) if len(differences) else math.nan
    p = one_sided_p(differences) if name != selection.baseline else math.nan
    half = half_interval(differences) if name != selection.baseline else math.nan
    return Candidate(
        name=name,
        mixture=selection.candidates[name],
        n=len(runs),
        mean=float(runs.mean()) if len(runs) else None,
        std=float(runs.std(ddof=1)) if len(runs) > 1 else None,
        values=tuple(mine.values()),
        difference=_finite(difference),
        difference_low=_finite(difference - half),
        difference_high=_finite(difference + half),
        p=_finite(p),
        adjusted_p=None if math.isnan(p) else min(1.0, p * (len(selection.candidates) - 1)),
        tokens=sum(cost.tokens for cost in costs),
        device_seconds=sum(cost.device_seconds for cost in costs),
    )


def _in_each_metric(
    selection: Selection,
    trials: Sequence[Trial],
    found: Mapping[str, Candidate],
    *,
    unseeded: bool,
) -> dict[str, Candidate]:
    """The reports with what the candidates gain and pay in each metric, and their guardrails.

    Args:
        selection: of the candidates.
        trials: its runs among them.
        found: the reports, by name.
        unseeded: whether seeds changed no run.
    """
    full, rows, seeds = dict(found), selection.rows, selection.seeds

    def metric_runs(metric: str) -> dict[str, dict[int, float]]:
        runs = selection.metric_values(metric, trials)
        return {name: _first(own) for name, own in runs.items()} if unseeded else runs

    for guardrail in selection.guardrails:
        runs = metric_runs(guardrail.metric)
        for name, it in guarded(guardrail, runs, rows, seeds, selection.level).items():
            full[name] = replace(full[name], guarded=(*full[name].guarded, it))
    weights = selection.objective.weights
    for name, each in trade_offs(weights, metric_runs, rows, len(seeds)).items():
        full[name] = replace(full[name], trade_offs=each)
    return full


def _jointly(
    layout: np.ndarray, rows: Sequence[str], found: Mapping[str, Candidate]
) -> dict[str, Candidate]:
    """The reports with intervals and p-values of all candidates together.

    Args:
        layout: objective (candidates, seeds), the baseline's first.
        rows: names of the candidates.
        found: their reports.
    """
    joint, full = compare(layout), dict(found)
    for row, name in enumerate(rows[1:]):
        difference, half = float(joint.difference[row]), float(joint.half[row])
        full[name] = replace(
            full[name],
            difference_low=_finite(difference - half),
            difference_high=_finite(difference + half),
            p=_finite(float(joint.p[row])),
            adjusted_p=_finite(float(joint.adjusted_p[row])),
        )
    return full


def _first(runs: Mapping[int, float]) -> dict[int, float]:
    """The first of `runs`: what equal ones tell."""
    return dict(list(runs.items())[:1])


def _finite(value: float) -> float | None:
    """`value`, or None where it could not be measured."""
    return value if math.isfinite(value) else None
