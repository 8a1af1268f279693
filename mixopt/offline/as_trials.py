"""Finished runs from elsewhere as trials, which proposers take without a ledger.

Shapes: n rows, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import (
    Cost,
    CurvePoint,
    Fidelity,
    Role,
    State,
    Trial,
    TrialResult,
    TrialSpec,
)


def trials_of(table: TrialTable, costs: np.ndarray | None = None) -> list[Trial]:
    """A complete trial per run of `table`, numbered in the order of the file.

    A run's result is its last row; earlier rows of the same run become its curve.

    Args:
        table: finished runs.
        costs: (n,) cost of each row, in any unit; becomes `Cost.device_seconds`, which cost-aware
            proposers read. 0 if not given.
    """
    found = []
    last = {int(run): None for run in table.runs}  # file order, by first row
    rows: dict[int, list[int]] = {run: [] for run in last}
    for row, run in enumerate(table.runs):
        rows[int(run)].append(row)
    for number, own in enumerate(rows.values()):
        curve = sorted(own, key=lambda row: table.tokens[row])
        end = curve[-1]
        cost = 0.0 if costs is None else float(costs[end])
        result = TrialResult(
            metrics=metrics_of(table, end),
            curve=tuple(
                CurvePoint(step, round(table.tokens[row]), metrics_of(table, row))
                for step, row in enumerate(curve)
            ),
            cost=Cost(tokens=round(table.tokens[end]), device_seconds=cost),
        )
        found.append(Trial(number, spec_of(table, end), State.COMPLETE, result))
    return found


def pending_trials(
    domains: tuple[str, ...], weights: np.ndarray, fidelities: Sequence[Fidelity], first: int
) -> list[Trial]:
    """Running trials without a result, numbered from `first`.

    Args:
        domains: m names.
        weights: (n, m) their mixtures.
        fidelities: n of them.
        first: number of the first one; complete trials come before it.
    """
    return [
        Trial(
            first + k,
            TrialSpec(_mixture(domains, row), fidelity, seed=0, role=Role.SEARCH),
            State.RUNNING,
        )
        for k, (row, fidelity) in enumerate(zip(weights, fidelities, strict=True))
    ]


def spec_of(table: TrialTable, row: int) -> TrialSpec:
    """The spec that row `row` of `table` is a result of."""
    fidelity = Fidelity("", round(table.params[row]), round(table.tokens[row]))
    mixture = _mixture(table.domains, table.weights[row])
    return TrialSpec(mixture, fidelity, seed=int(table.seeds[row]), role=Role.DESIGN)


def metrics_of(table: TrialTable, row: int) -> dict[str, float]:
    """Metric → value of row `row`, without those that were not measured."""
    values = zip(table.metrics, table.values[row].tolist(), strict=True)
    return {name: value for name, value in values if np.isfinite(value)}


def _mixture(domains: tuple[str, ...], weights: np.ndarray) -> Mixture:
    # exactly these weights, so that a table made of the trials again equals the one they came from
    return Mixture(domains, tuple(weights.tolist()))
