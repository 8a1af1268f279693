"""Summaries of many replays of one proposer: regret by cost, and the cost until the best.

Shapes: s seeds, c costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.offline.replay import Replay

MOST_COSTS = 200  # points of a curve: more than a screen can show


@dataclass(frozen=True)
class Curve:
    """Regret by cost over seeds; NaN where no seed has a value yet.

    Attributes:
        cost: (c,) spent so far.
        mean: (c,) over the seeds that have a value by then.
        median: (c,) likewise.
        low: (c,) first quartile.
        high: (c,) third quartile.
        seeds: (c,) how many have a value.
    """

    cost: np.ndarray
    mean: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class Summary:
    """Results of a proposer within the budget.

    Attributes:
        proposer: its name.
        seeds: how many searches.
        trained: mean regret of the best trained mixture; NaN unless every seed trained one.
        trained_error: its standard error over seeds; NaN for a single seed.
        recommended: mean regret of the recommended mixture; NaN unless every seed has one.
        recommended_error: its standard error.
        found: share of seeds that trained the best mixture of the pool.
        until_best: mean cost until then; None unless every seed did.
        until_best_error: its standard error; None likewise.
        until_best_median: median cost until then; None unless more than half of the seeds did.
        cost: mean cost spent.
        runs: mean number of runs observed, free ones included.
        drawn: mean number of target runs that were drawn at random, before a surrogate could be
            fitted.
        emptied: share of seeds that trained every target run before the budget was spent.
    """

    proposer: str
    seeds: int
    trained: float
    trained_error: float
    recommended: float
    recommended_error: float
    found: float
    until_best: float | None
    until_best_error: float | None
    until_best_median: float | None
    cost: float
    runs: float
    drawn: float
    emptied: float


def summary(replays: Sequence[Replay]) -> Summary:
    """The summary of the replays of one proposer, one per seed."""
    ends = [replay.points[-1] for replay in replays]
    until = np.array([math.inf if r.until_best is None else r.until_best for r in replays])
    trained = np.array([end.trained for end in ends])
    recommended = np.array([end.recommended for end in ends])
    middle = float(np.sort(until)[len(until) // 2])  # of the upper half where seeds are even
    if len(until) % 2 == 0 and math.isfinite(middle):
        middle = float(np.median(until))
    everywhere = bool(np.isfinite(until).all())
    return Summary(
        proposer=replays[0].proposer,
        seeds=len(replays),
        trained=float(trained.mean()),
        trained_error=_error(trained),
        recommended=float(recommended.mean()),
        recommended_error=_error(recommended),
        found=float(np.isfinite(until).mean()),
        until_best=float(until.mean()) if everywhere else None,
        until_best_error=_error(until) if everywhere and len(until) > 1 else None,
        until_best_median=middle if math.isfinite(middle) else None,
        cost=float(np.mean([end.cost for end in ends])),
        runs=float(np.mean([end.runs for end in ends])),
        drawn=float(np.mean([replay.drawn for replay in replays])),
        emptied=float(np.mean([replay.emptied for replay in replays])),
    )


def cost_grid(replays: Sequence[Replay]) -> np.ndarray:
    """(c,) costs at which any of `replays` changed, evenly thinned to `MOST_COSTS`."""
    costs = np.unique([point.cost for replay in replays for point in replay.points])
    if len(costs) <= MOST_COSTS:
        return costs
    return np.asarray(costs[np.linspace(0, len(costs) - 1, MOST_COSTS).round().astype(int)])


def curve(replays: Sequence[Replay], what: str, cost: np.ndarray) -> Curve:
    """Regret of what was `trained` or `recommended` by `cost` (c,), over seeds.

    A regret holds until the next one; the last one holds after the end of a search.
    """
    steps = np.stack([_by_cost(replay, what, cost) for replay in replays])  # (s, c)
    known = np.isfinite(steps)
    mean, median, low, high = np.full((4, len(cost)), np.nan)
    for k in np.flatnonzero(known.any(axis=0)):
        values = steps[known[:, k], k]
        mean[k] = values.mean()
        low[k], median[k], high[k] = np.quantile(values, [0.25, 0.5, 0.75])
    return Curve(cost, mean, median, low, high, known.sum(axis=0))


def _by_cost(replay: Replay, what: str, cost: np.ndarray) -> np.ndarray:
    """(c,) the last known regret of one search at each cost."""
    steps = [(p.cost, getattr(p, what)) for p in replay.points if math.isfinite(getattr(p, what))]
    if not steps:
        return np.full(len(cost), np.nan)
    at, values = np.array(steps).T
    last = np.searchsorted(at, cost, side="right") - 1
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
