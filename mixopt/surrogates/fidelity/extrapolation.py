"""Many curves of one kind, extrapolated to one place by their power laws, and tested on their ends.

Shapes: p points, c curves, q metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.intervals import NORMAL_90
from mixopt.surrogates.base import error_correlation
from mixopt.surrogates.fidelity.power_laws import PRIOR_POINTS, Kind, fit_laws
from mixopt.surrogates.per_metric import correlation_of_few, student_factor

# Of a curve, the points before this share of the last are left out: they fall more steeply than the
# rest (warm-up). From 2/3 of a curve (5Mix) the error of its end falls from .029 to .017; .2 gives
# .020, .45 gives .016 but .027 against .023 from half a curve.
RECENT = 0.3


@dataclass(frozen=True)
class Extrapolation:
    """What c curves come to at one place, and how well that was predicted where it is known.

    Attributes:
        mean: (c, q); NaN where a curve has no point of a metric.
        own: (c, q) deviation of each curve's law around the mean.
        shared: (c, q) deviation that all curves of a metric have in common.
        tied: (q, q) correlation of what the metrics have in common with all curves.
        noise: (q,) deviation of one point around its law.
        alike: (q, q) correlation of the metrics' points around their laws.
        errors: (k, q) errors of the same extrapolation at points that are known; k may be 0.
        exponent: (q,) of the law.
    """

    mean: np.ndarray
    own: np.ndarray
    shared: np.ndarray
    tied: np.ndarray
    noise: np.ndarray
    alike: np.ndarray
    errors: np.ndarray
    exponent: np.ndarray


def extrapolate(
    x: np.ndarray,
    values: np.ndarray,
    curves: np.ndarray,
    at: float,
    kind: Kind,
    noise: np.ndarray | None = None,
) -> Extrapolation:
    """`fit_laws`, `LawFit.predict` and a test of both on the last points that are known.

    Beyond all points: the ends of all curves are held out and predicted from as far before them as
    `at` is beyond, but from three places at least. Where some curves are known at `at`: every
    second of them is held out, from where the others end. Deviations are scaled up, never down,
    until nine tenths of these errors lie within 1.645 of them, and by Student's factor: variances
    are known from as many curves as reach the farthest place, and by their priors.

    Args:
        x: (p,) as for `fit_laws`, like the other arguments.
        values: (p, q).
        curves: (p,) 0 to c - 1.
        at: where.
        kind: see `fit_laws`.
        noise: see `fit_laws`.

    Raises:
        SurrogateError: all points are at one x.
    """
    law = fit_laws(x, values, curves, kind, noise, at)
    mean, own, bent, shifted = law.predict(at)
    errors, z = _backtest(x, values, curves, at, kind, noise)
    calibration = max(1.0, float(np.quantile(z, 0.9)) / NORMAL_90) if len(z) else 1.0
    farthest = x == (at if (x == at).any() else x.max())
    calibration *= student_factor(len(np.unique(curves[farthest])) + PRIOR_POINTS)
    left = law.residuals(x, values, curves)
    # of runs at one size, the farthest tell best how they err together, and the others about it
    alike = correlation_of_few(left[farthest], error_correlation(left))
    shared = np.hypot(bent, shifted)
    return Extrapolation(
        mean=mean,
        own=own * calibration,
        shared=shared * calibration,
        tied=mixed_correlation([(bent, None), (shifted, alike)]),
        noise=law.noise,
        alike=alike,
        errors=errors,
        exponent=law.exponent,
    )


def mixed_correlation(parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
    """(q, q) correlation of a sum of independent errors.

    Args:
        parts: of each its deviations (k, q), NaN left out, and its correlation (q, q), None where
            all metrics err one way.
    """
    q = parts[0][0].shape[1]
    total = np.zeros((q, q))
    for deviations, tied in parts:
        size = rms(deviations)
        total += np.outer(size, size) * (1.0 if tied is None else tied)
    scale = np.sqrt(np.maximum(np.diag(total), np.finfo(float).tiny))
    correlation = total / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def rms(values: np.ndarray) -> np.ndarray:
    """(q,) root mean square over rows (r, q), NaN left out; 0 without rows."""
    known = np.isfinite(values)
    total = np.where(known, np.nan_to_num(values) ** 2, 0.0).sum(axis=0)
    return np.asarray(np.sqrt(total / np.maximum(known.sum(axis=0), 1)))


def recent(x: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """(p,) mask of the points that a learning curve is extrapolated from (see RECENT).

    At least the last three of every curve.
    """
    keep = np.zeros(len(x), dtype=bool)
    for curve in np.unique(curves):
        rows = np.flatnonzero(curves == curve)
        rows = rows[np.argsort(x[rows], kind="stable")]
        keep[rows[x[rows] >= RECENT * x[rows[-1]]]] = True
        keep[rows[-3:]] = True
    return keep


def _backtest(
    x: np.ndarray,
    values: np.ndarray,
    curves: np.ndarray,
    at: float,
    kind: Kind,
    noise: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (k, q) at held-out points and |errors| over their deviations, flat and finite."""
    left, last, place = _hold_out(x, curves, at)
    if not last.any():
        return np.empty((0, values.shape[1])), np.empty(0)
    kept, own_curve = np.unique(curves[left], return_inverse=True)
    law = fit_laws(x[left], values[left], own_curve.ravel(), kind, noise, place)
    mean, *parts = law.predict(place)
    rows = np.searchsorted(kept, curves[last])
    errors = mean[rows] - values[last]
    z = np.abs(errors) / np.sqrt(sum(part[rows] ** 2 for part in parts) + law.noise**2)
    return errors, z[np.isfinite(z)]


def _hold_out(x: np.ndarray, curves: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Points to fit to (p,), points to predict (p,), and where the latter are."""
    places, none = np.unique(x), np.zeros(len(x), dtype=bool)
    if at > places[-1]:
        if len(places) < 4:
            return ~none, none, at
        place = float(places[-1])
        left = x <= min(max(place * place / at, places[2]), places[-2])
        return left, (x == place) & np.isin(curves, curves[left]), place
    # some curves are there already: cut every second of them to where the others are
    there = np.unique(curves[x == at])
    rest = ~np.isin(curves, there)
    if len(there) < 2 or not rest.any():
        return ~none, none, at
    ends = [x[curves == curve].max() for curve in np.unique(curves[rest])]
    cut = np.isin(curves, there[::2])
    left = ~cut | (x <= np.median(ends))
    return left, cut & (x == at) & np.isin(curves, curves[left]), at
