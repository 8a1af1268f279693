"""A gain as a compute multiplier: how many times the tokens the baseline would need for the same.

The baseline's learning curve is carried on by a power law, b(t) = a + c t^-α, up to where it
reaches what the candidate reached after T tokens: t^-α = T^-α + d / c, for a difference d < 0.

A run whose learning rate decays falls faster towards its end than longer runs would: before its end
it lies above what shorter runs end at. So c is too large, and the multiplier a lower bound. From
runs of several lengths, each decayed to its end, it is an estimate.

Shapes: s seeds, n draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.core.intervals import NORMAL_90
from mixopt.selection.results import number

# Curves of Data Mixing Laws (2403.16952), mean loss, cut at 5 / 10 / 15 thousand steps and carried
# on to 1.2 to 2 times as many by the points in the last 60 % before the cut: the logarithm of the
# multiplier is, as a share of the true one, .51 / .75 / .86 at α = .5; .46 / .67 / .77 at .3; .70 /
# 1.09 / 1.27 at 1 (medians over 80 / 176 / 213 pairs). With a median of .5 it is too small rather
# than too large. From the last 80 % it is .61 / .57 / .71 at .5: curves bend more early on.
EXPONENT, SPREAD = 0.5, 0.5  # median of α and the standard deviation of its logarithm
FROM = 0.4  # share of the tokens before which a curve's points do not count
FEWEST_POINTS = 3  # of a curve, its end among them
FARTHEST = 10.0  # multiplier beyond which the law is not believed
DRAWS = 4000

Curve = Mapping[int, float]  # tokens → objective; the last one is the end


@dataclass(frozen=True)
class Multiplier:
    """How many times the tokens the baseline would need for what a candidate reached.

    Attributes:
        value: the median; None where it is not known.
        low: lower end of the 90 % interval; None where nothing is known.
        high: its upper end; None where that is beyond `FARTHEST`, or beyond what the curve reaches.
        lower_bound: whether it is one: from the curves of single runs, whose learning rate decays.
        reason: why `value` is not known; else empty.
    """

    value: float | None
    low: float | None
    high: float | None
    lower_bound: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The multiplier as JSON-able values; `from_json` gives it back exactly."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "lower_bound": self.lower_bound,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Multiplier:
        """The multiplier that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another shape.
        """
        return cls(
            number(values["value"]),
            number(values["low"]),
            number(values["high"]),
            bool(values["lower_bound"]),
            str(values["reason"]),
        )


def multiplier(
    curves: Sequence[Curve],
    tokens: int,
    difference: tuple[float, float],
    *,
    lower_bound: bool,
    fewest: int = FEWEST_POINTS,
    seed: int = 0,
) -> Multiplier:
    """The compute multiplier of a candidate that is better than the baseline.

    Its interval holds what is not known of the difference, of the fall of the baseline's curve
    (Student's t over seeds) and of the exponent.

    Args:
        curves: (s) the baseline's, of different seeds: of single runs, or the ends of runs of
            several lengths. Those without a value at `tokens` tell nothing.
        tokens: after which the candidate was measured.
        difference: lower and upper end of the 90 % interval of objective - baseline's.
        lower_bound: whether the curves are of runs whose learning rate decays.
        fewest: points that a curve needs, its value at `tokens` among them.
        seed: of the draws.
    """
    unknown = _unknown(curves, tokens, fewest)
    if unknown:
        return Multiplier(None, None, None, lower_bound, unknown)
    rng = np.random.default_rng(seed)
    alpha = EXPONENT * np.exp(SPREAD * rng.standard_normal(DRAWS))
    falls = np.stack([_fall(it, tokens, alpha) for it in curves if tokens in it])  # (s, n)
    freedom = len(falls) - 1
    error = falls.std(axis=0, ddof=1) / math.sqrt(len(falls))
    fall = falls.mean(axis=0) + error * rng.standard_t(freedom, DRAWS)
    low, high = difference
    drawn = (low + high) / 2 + (high - low) / (2 * NORMAL_90) * rng.standard_normal(DRAWS)
    if np.mean(fall <= 0) > 0.05:
        reason = "the baseline's curve is not seen to fall over its seeds"
        return Multiplier(None, None, None, lower_bound, reason)
    left = 1 + drawn / np.maximum(fall, 1e-300) * tokens**alpha  # (t / T)^-α; 0 at the asymptote
    logs = -np.log(np.maximum(left, 1e-9)) / alpha
    q05, q50, q95 = np.exp(np.minimum(np.quantile(logs, (0.05, 0.5, 0.95)), 700))
    high_end = float(q95) if q95 <= FARTHEST else None
    if q50 > FARTHEST:
        reason = f"more than {FARTHEST:g} times, or than the baseline's curve will ever reach"
        return Multiplier(None, float(min(q05, FARTHEST)), None, lower_bound, reason)
    return Multiplier(float(q50), float(q05), high_end, lower_bound)


def _unknown(curves: Sequence[Curve], tokens: int, fewest: int) -> str:
    """Why nothing can be said; empty if something can."""
    ended = [curve for curve in curves if tokens in curve]
    if len(ended) < 2:
        return "fewer than two seeds of the baseline have a learning curve"
    points = min(len(_used(curve, tokens)) for curve in ended) + 1
    if points < fewest:
        return (
            f"the baseline's curve has {points} of {fewest} evaluations needed in the last "
            f"{1 - FROM:.0%} of its training"
        )
    return ""


def _used(curve: Curve, tokens: int) -> list[int]:
    """The places of `curve` that count beside its end at `tokens`."""
    return [t for t in curve if t != tokens and t >= FROM * tokens]


def _fall(curve: Curve, tokens: int, alpha: np.ndarray) -> np.ndarray:
    """(n,) c of b(t) = b(T) + c (t^-α - T^-α), by least squares, for each of `alpha` (n,).

    It goes through the end: so a curve that lies above b before it has a c that is never too small.
    """
    used = _used(curve, tokens)
    x = np.array(used, dtype=float)[:, None] ** -alpha - float(tokens) ** -alpha  # (points, n)
    y = np.array([curve[t] - curve[tokens] for t in used])[:, None]
    return np.asarray((x * y).sum(axis=0) / (x * x).sum(axis=0))
