"""What a mixture gains and pays, metric by metric, where the objective weighs several."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixopt.pipelines.views.page.parts import Figure
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.plots import selection
from mixopt.search.front import nondominated
from mixopt.study.queries import search_trials

if TYPE_CHECKING:
    from mixopt.core.trials import Trial
    from mixopt.selection.results import Candidate
    from mixopt.selection.trade_offs import TradeOff
    from mixopt.study.results import Verdict
    from mixopt.study.snapshot import Snapshot

MOST_DRAWN = 3  # metrics of which every pair has a figure
FRONT = ("trial", "mixture")
NOTE = (
    "Mixtures of the search that no other beats in every metric, as measured: means over the seeds "
    "that each has, mostly one. "
    "`mixopt front` shows what is predicted of the whole space, and which weights choose a point."
)


def trade_rows(
    candidates: Sequence[Candidate], digits: int, baseline: str
) -> list[tuple[str, list[str]]]:
    """A row per metric of the objective: each candidate's difference ± half its 90 % interval."""
    metrics = dict.fromkeys(it.metric for each in candidates for it in each.trade_offs)
    return [
        (
            f"{verbatim(metric)} against {baseline} ± 90 %",
            [_cell(it, metric, digits) for it in candidates],
        )
        for metric in metrics
    ]


def trade_line(verdict: Verdict | None) -> str:
    """In which metrics the promoted mixture is shown better or worse; empty of one metric."""
    if verdict is None:
        return ""
    offs = verdict.winner.trade_offs
    if not offs or not verdict.improved:
        return ""
    parts = []
    for word, shown in (
        ("better in", [it for it in offs if it.better]),
        ("worse in", [it for it in offs if it.worse]),
        ("not told apart in", [it for it in offs if not it.better and not it.worse]),
    ):
        if shown:
            parts.append(f"{word} {', '.join(it.metric for it in shown)}")
    return (
        f"Against {verdict.baseline} the {verdict.promoted} mixture is {'; '.join(parts)} "
        "(90 % intervals, each metric by itself)."
    )


def front_rows(snapshot: Snapshot) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the measured front; no rows where the objective weighs one metric."""
    metrics = snapshot.objective.metrics
    if len(metrics) < 2:
        return FRONT, []
    trials, values = _measured(snapshot)
    if not trials:
        return FRONT, []
    kept = np.flatnonzero(nondominated(values * np.sign(snapshot.objective.coefficients)))
    order = kept[np.argsort(values[kept, 0] * np.sign(snapshot.objective.coefficients[0]))]
    rows = []
    for row in order.tolist():
        weights = sorted(trials[row].spec.mixture.as_dict().items(), key=lambda item: -item[1])
        mixture = ", ".join(f"{d} {w:.1%}" for d, w in weights if w >= 0.005)
        cells = (f"{value:.4f}" for value in values[row])
        rows.append((str(trials[row].number), *cells, mixture))
    return ("trial", *metrics, "mixture"), rows


def front_figures(snapshot: Snapshot) -> list[Figure]:
    """Every pair of up to three metrics: the search's trials, and those that none beats."""
    metrics = snapshot.objective.metrics
    if not 2 <= len(metrics) <= MOST_DRAWN:
        return []
    trials, values = _measured(snapshot)
    if not trials:
        return []
    signs = np.sign(snapshot.objective.coefficients)
    labels = [f"trial {trial.number}" for trial in trials]
    return [
        Figure(
            selection.trade_off(
                values[:, (a, b)],
                nondominated(values[:, (a, b)] * signs[[a, b]]),
                (metrics[a], metrics[b]),
                labels=labels,
            ),
            "A point per mixture of the search, as measured; on the dotted line lie those that no "
            "other beats in both metrics.",
            "the table above, and the table of trials",
        )
        for a, b in itertools.combinations(range(len(metrics)), 2)
    ]


def _measured(snapshot: Snapshot) -> tuple[list[Trial], np.ndarray]:
    """The first complete trial of each mixture, and (n, q) the metrics' means over its seeds."""
    metrics = snapshot.objective.metrics
    same: dict[Hashable, list[Trial]] = {}
    for trial in search_trials(snapshot.trials):
        if trial.complete and all(metric in trial.metrics for metric in metrics):
            same.setdefault(trial.spec.mixture.key, []).append(trial)
    means = [[np.mean([t.metrics[m] for t in each]) for m in metrics] for each in same.values()]
    return [each[0] for each in same.values()], np.array(means)


def _cell(candidate: Candidate, metric: str, digits: int) -> str:
    found: TradeOff | None = next((it for it in candidate.trade_offs if it.metric == metric), None)
    if found is None or found.difference is None:
        return "–"
    difference = f"{found.difference:+.{digits}f}".replace("-", "−")
    if found.low is None or found.high is None:
        return difference
    return f"{difference} ± {(found.high - found.low) / 2:.{digits}f}"
