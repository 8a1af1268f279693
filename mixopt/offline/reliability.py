"""The reliability of the metrics of finished runs: from repeats at the predicted fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixopt.core.mixture import rounded
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.noise import seed_scatter
from mixopt.surrogates.reliability import Reliability, reliability
from mixopt.surrogates.scoring import OBJECTIVE


def values_by_mixture(
    table: TrialTable, objective: Objective, target: Fidelity
) -> list[dict[int, float]]:
    """Of each mixture that was run at `target`, the objective by seed; of equal seeds the first."""
    final = table.final
    final = final.select(final.at(target))
    value = objective.of_table(final)
    runs: dict[tuple[int, ...], dict[int, float]] = {}
    for row in np.flatnonzero(np.isfinite(value)).tolist():
        own = runs.setdefault(rounded(final.weights[row].tolist()), {})
        own.setdefault(int(final.seeds[row]), float(value[row]))
    return list(runs.values())


def table_reliability(
    table: TrialTable, target: Fidelity, objective: Objective | None = None
) -> dict[str, Reliability]:
    """By metric, and `objective` if it is given, as far as repeats tell.

    Args:
        table: the runs.
        target: of the runs that count.
        objective: composed of the table's metrics.
    """
    asked = {metric: Objective({metric: 1.0}, prefix="") for metric in table.metrics}
    found = {}
    for name, value in (asked | ({OBJECTIVE: objective} if objective else {})).items():
        runs = values_by_mixture(table, value, target)
        known = reliability(runs, seed_scatter(runs))
        if known is not None:
            found[name] = known
    return found


def reliable(metrics: Sequence[str], found: Mapping[str, Reliability]) -> list[str]:
    """Those of `metrics` that are not known to be poor; all of them where all are."""
    kept = [metric for metric in metrics if metric not in found or not found[metric].poor]
    return kept or list(metrics)
