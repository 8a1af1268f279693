"""The objective of finished runs: as it was asked for, or the mean of the reliable metrics."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity
from mixopt.offline.objective_words import objective_of, refuse_mixed_scales
from mixopt.offline.reliability import reliable, table_reliability
from mixopt.offline.runs import Runs
from mixopt.pipelines.views.reliability import left_out, reliability_warnings

SEEDS = "run mixtures with several seeds"


def read_objective(
    asked: Sequence[str], runs: Runs, target: Fidelity
) -> tuple[Objective, list[str]]:
    """The objective over the metrics of `runs`, and notes for the user.

    Metrics whose signal over noise is under 2 are left out of the default. Where repeats do not
    tell, or where all are under 2, none is.

    Args:
        asked: `metric=weight` each; the mean of all metrics if there is none.
        runs: the finished runs.
        target: the fidelity whose repeats tell.

    Raises:
        StudyError: see `objective_of` and `refuse_mixed_scales`.
    """
    table = runs.table
    found = table_reliability(table, target)
    kept = list(table.metrics) if asked else reliable(table.metrics, found)
    if not asked:
        refuse_mixed_scales(kept, table.with_metrics(kept).final.values)
    without = {name: it for name, it in found.items() if name not in kept}
    objective, notes = objective_of(asked, kept, runs.layout, left_out=len(without))
    if without:
        notes.append(left_out(without))
    weighed = table_reliability(table.with_metrics(objective.metrics), target, objective)
    return objective, [*notes, *reliability_warnings(weighed, SEEDS)]
