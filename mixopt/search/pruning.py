"""Which running trials are hopeless: limits on their learning curves, from trials that ended.

Trials of one study share schedule, evaluations and data order, so that at one step they are
comparable with each other as they stand, whatever shape their curves have. At every evaluation
before the end the final objective of the trials that ended is regressed on what they had there:

    y_end = a + b y_step + error,      error ~ N(0, σ²), all three from n trials

The end may be measured on more text than the way is. It is for all trials alike, so that a and b
take up what it changes.

A running trial's final objective then follows a shifted and scaled Student distribution with n - 2
degrees of freedom, and its chance of ending below the best so far falls with its own y_step. Where
it falls below `chance` is its limit: one number per step, which a training can be given before it
begins.

The same regression, metric by metric, predicts a pruned trial's final metrics with their deviation:
surrogates that weigh their rows learn from it (`TrialTable.noise_std`), so that a search does not
take
the mixtures that were stopped for unknown ones.

Optuna's pruners compare intermediate values with their median or a quantile and say nothing of the
chance to err (`MedianPruner`, `PercentilePruner`).

Shapes: n trials that ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Limits, Line

FEWEST = 5  # trials that ended, as Optuna's pruners begin; of 4, two degrees of freedom are left


def limits(
    curves: Sequence[Sequence[CurvePoint]],
    objective: Objective,
    chance: float,
    warmup: float = 0.0,
) -> Limits | None:
    """What a trial must stay below not to be pruned; None where too little is known to prune any.

    Args:
        curves: of trials of one fidelity that ended, oldest point first; the last one is what they
            measured.
        objective: lower is better.
        chance: of ending below the best of them, under which a trial is hopeless; in (0, 1/2).
        warmup: share of the training before which none is pruned.
    """
    if len(curves) < FEWEST:
        return None
    points = [{p.step: p for p in curve} for curve in curves]
    ends = np.array([objective.value(curve[-1].metrics) for curve in curves])
    last = max(curve[-1].step for curve in curves)
    best = float(ends.min())
    most, lines = [], {}
    names = objective.metrics
    last_values = np.array([[curve[-1].metrics[m] for m in names] for curve in curves])
    for step in sorted(set.intersection(*(set(one) for one in points))):
        if not warmup * last <= step < last:
            continue
        there = [one[step].metrics for one in points]
        values = np.array([objective.value(metrics) for metrics in there])
        limit = hopeless_from(values, ends, best, chance)
        if math.isfinite(limit):
            most.append((step, limit))
            columns = np.array([[metrics[m] for m in names] for metrics in there]).T
            found = [line(x, y) for x, y in zip(columns, last_values.T, strict=True)]
            lines[step] = {m: f for m, f in zip(names, found, strict=True) if f is not None}
    if not most:
        return None
    reason = f"its chance to end below {best:.4f}, the best so far, is less than {chance:g}"
    return Limits(dict(objective.weights), tuple(most), reason, lines)


def line(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The regression line of `y` (n,) on `x` (n,), n > 2; None where all of `x` are alike."""
    from scipy.special import stdtrit

    n, centre = len(x), float(x.mean())
    spread = float(((x - centre) ** 2).sum())
    if spread <= 0:
        return None
    slope = float((x - centre) @ y) / spread
    left = y - y.mean() - slope * (x - centre)
    error = math.sqrt(float(left @ left) / (n - 2))
    student = float(stdtrit(n - 2, 0.95)) / NORMAL_90
    return Line(centre, float(y.mean()), slope, error, spread, student, n)


def hopeless_from(x: np.ndarray, y: np.ndarray, best: float, chance: float) -> float:
    """The intermediate value from which on a trial ends below `best` with less than `chance`.

    Infinite where there is none: where intermediate values (all alike, say) do not tell the end, or
    so little that ever worse ones make it no surer.

    Args:
        x: (n,) values at one step of trials that ended, n > 2.
        y: (n,) what they ended at.
        best: what is to be beaten.
        chance: below 1/2.
    """
    from scipy.special import stdtrit

    fit = line(x, y)
    if fit is None:
        return math.inf
    margin = -float(stdtrit(fit.n - 2, chance)) * fit.error
    # ahead(u) = ȳ + slope u - best - margin √(1 + 1/n + u²/spread) at u = x - x̄ is how far the
    # lower
    # end of what is likely lies above `best`. It is concave, so that with a slope at infinity above
    # 0 it rises everywhere, and its root is the greater one of a quadratic equation.
    if fit.slope <= margin / math.sqrt(fit.spread):
        return math.inf
    ahead = fit.y - best
    square = fit.slope**2 - margin**2 / fit.spread
    half = fit.slope * ahead
    constant = ahead**2 - margin**2 * (1 + 1 / fit.n)
    root = math.sqrt(max(0.0, half**2 - square * constant))
    return fit.x + (root - half) / square
