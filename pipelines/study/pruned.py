"""Beyond what the trials of a study are pruned."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.trials import Limits, Trial
from mixopt.io.trial_files import read_curve
from mixopt.pipelines.study.session import Session
from mixopt.search import pruning


def pruning_limits(session: Session, before: Sequence[Trial]) -> Limits | None:
    """Beyond what trials are to be pruned that are asked for once `before` have ended.

    None where the study prunes nothing, or too few of them are complete to know.
    """
    pruner = session.study.search.pruner
    if pruner is None:
        return None
    done = [t for t in before if t.complete and t.spec.fidelity == session.fidelity]
    curves = [read_curve(session.home, trial) for trial in done]
    return pruning.limits(curves, session.objective, pruner.chance, pruner.warmup)
