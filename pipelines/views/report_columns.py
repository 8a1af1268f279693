"""The mixtures that a report sets side by side."""

from __future__ import annotations

from dataclasses import dataclass

from mixopt.core.mixture import Mixture
from mixopt.selection.candidates import best_observed
from mixopt.selection.results import Candidate
from mixopt.study.queries import search_trials
from mixopt.study.snapshot import Snapshot


@dataclass(frozen=True)
class Column:
    """One mixture of a table.

    Attributes:
        name: of the mixture.
        mixture: its weights.
        chosen: whether it is what the page recommends.
        measured: what its runs show; None where it was not run.
    """

    name: str
    mixture: Mixture
    chosen: bool = False
    measured: Candidate | None = None


def columns_of(snapshot: Snapshot) -> list[Column]:
    """The verdict's candidates; before there is one, the baselines and the best observed."""
    verdict = snapshot.verdict
    if verdict is not None:
        chosen = verdict.promoted
        return [Column(c.name, c.mixture, c.name == chosen, c) for c in verdict.candidates]
    columns = [_column(name, mixture, snapshot) for name, mixture in snapshot.baselines.items()]
    best = best_observed(search_trials(snapshot.trials), snapshot.objective)
    if best is not None:
        columns.append(_column("best observed", best, snapshot))
    return columns


def _column(name: str, mixture: Mixture, snapshot: Snapshot) -> Column:
    """`mixture` with the measurements of the search's trials on it."""
    same = [t for t in search_trials(snapshot.trials) if t.spec.mixture.same_as(mixture)]
    values = [value for t in same if (value := snapshot.objective.of_trial(t)) is not None]
    if not values:
        return Column(name, mixture)
    mean = sum(values) / len(values)
    found = Candidate(name, mixture, n=len(values), mean=mean, values=tuple(values))
    return Column(name, mixture, measured=found)
