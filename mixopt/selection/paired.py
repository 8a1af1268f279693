"""Paired differences of two candidates over common seeds: interval, p-value, seeds needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

MOST_SEEDS = 1000  # beyond this, no number of seeds is recommended
ROUNDING = 1e-9  # spread of a candidate's runs, as a share of their size, that is rounding


def gaps(mine: Mapping[int, float], base: Mapping[int, float]) -> np.ndarray:
    """Differences (pairs,) of two candidates over the seeds that both finished."""
    return np.array([mine[seed] - base[seed] for seed in mine if seed in base])


def silent(values: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether seeds change no candidate's `values` but by rounding: a trainer may not use them.

    >>> silent({"natural": {1: 2.5, 2: 2.5}, "uniform": {1: 2.4, 2: 2.4}})
    True
    >>> silent({"natural": {1: 2.5, 2: 2.5}, "uniform": {1: 2.4, 2: 2.3}})
    False
    """
    runs = [np.array(list(own.values())) for own in values.values() if len(own) > 1]
    return bool(runs) and all(np.ptp(own) <= ROUNDING * np.abs(own).max() for own in runs)


def half_interval(values: np.ndarray) -> float:
    """Half the two-sided 90 % interval of the mean of `values` (n,), by Student's t.

    NaN from fewer than two values.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan
    return float(t.ppf(0.95, df=n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)


def one_sided_p(gaps: np.ndarray) -> float:
    """One-sided p-value of mean(gaps) >= 0; NaN from fewer than two."""
    from scipy.stats import t

    if len(gaps) < 2:
        return math.nan
    error = float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    if error == 0:
        return 0.0 if gaps.mean() < 0 else 1.0
    return float(t.cdf(gaps.mean() / error, df=len(gaps) - 1))


def seeds_needed(gaps: np.ndarray, level: float) -> int | None:
    """Pairs at which the mean and deviation of `gaps` (n,) give a one-sided p of at most `level`.

    None where the mean is not below 0, from fewer than two gaps, or beyond `MOST_SEEDS`.
    """
    from scipy.stats import t

    if len(gaps) < 2 or gaps.mean() >= 0:
        return None
    counts = np.arange(2, MOST_SEEDS + 1)
    with np.errstate(divide="ignore"):
        statistic = gaps.mean() * np.sqrt(counts) / gaps.std(ddof=1)
    passing = counts[t.cdf(statistic, df=counts - 1) <= level]
    return int(passing[0]) if len(passing) else None
