"""The band that a full run's difference to the baseline's is expected in, by smaller pairs.

The level of a larger model cannot be predicted from runs of one size; its difference to the
baseline can be expected near the one that was measured, if the advantage carries over.

A curve is a sequence of (place, objective), places ascending: tokens, or the share of a training
that they are. Lower objectives are better.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mixopt.selection.paired import ROUNDING

LEVEL = 0.95
BEYOND = 0.01  # of a curve's last place: trainings end at whole steps, so a little earlier or later

Curve = Sequence[tuple[float, float]]


class Place(StrEnum):
    """Where a difference lies."""

    INSIDE = "inside"
    WORSE = "worse"
    BETTER = "better"


@dataclass(frozen=True)
class Band:
    """The 95 % prediction interval of the difference of one further pair.

    Attributes:
        low: its lower end, of promoted - baseline.
        high: its upper end.
        pairs: that it follows from.
    """

    low: float
    high: float
    pairs: int

    def place(self, difference: float) -> Place:
        """Where `difference` lies; lower is better."""
        if difference > self.high:
            return Place.WORSE
        return Place.BETTER if difference < self.low else Place.INSIDE


def value_at(curve: Curve, place: float) -> float | None:
    """The curve at `place`, linear between its points.

    None before the first point, and beyond the last one by more than a hundredth.
    """
    if not curve or place < curve[0][0] or place > (1 + BEYOND) * curve[-1][0]:
        return None
    after = bisect.bisect_left(curve, place, key=lambda point: point[0])
    if after == len(curve) or curve[after][0] == place:
        return curve[min(after, len(curve) - 1)][1]
    (left, before), (right, then) = curve[after - 1], curve[after]
    return before + (then - before) * (place - left) / (right - left)


def expected(pairs: Sequence[tuple[Curve, Curve]], share: float) -> Band | None:
    """The band at that share of the training.

    Args:
        pairs: curves of the promoted mixture and of the baseline with the same seed, by share.
        share: 0 … 1.

    Returns:
        None from fewer than two pairs that have evaluations around it, or where seeds change no
        difference.
    """
    values = [(value_at(mine, share), value_at(base, share)) for mine, base in pairs]
    known = [(mine, base) for mine, base in values if mine is not None and base is not None]
    if len(known) < 2:
        return None
    size = max(abs(value) for pair in known for value in pair)
    return interval([mine - base for mine, base in known], least=ROUNDING * size)


def interval(differences: Sequence[float], least: float = 0.0) -> Band | None:
    """Prediction interval of one more difference: mean ± t(n - 1) · s · √(1 + 1/n).

    None from fewer than two, or where they differ by no more than `least`.
    """
    from scipy.special import stdtrit

    n, values = len(differences), np.array(differences)
    if n < 2 or float(np.ptp(values)) <= least:
        return None
    quantile = float(stdtrit(n - 1, (1 + LEVEL) / 2))
    half = quantile * float(values.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return Band(float(values.mean()) - half, float(values.mean()) + half, n)
