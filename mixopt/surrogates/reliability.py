"""Whether a metric can rank mixtures: how far these lie apart in it, against what a seed does.

Signal over noise (Heineman et al., 2508.13144, who take the spread of models for the signal and
that of the last checkpoints for the noise). Here the signal is the standard deviation over
mixtures, cleaned of noise, and the noise is the standard deviation between seeds of one mixture.

Trials that share a seed have part of its error in common, which moves no rank: of our own proxies
about a fifth of the variance. Repeats of one mixture do not show it, so all of the noise is taken
off. The signal is then too low, by less than an eighth where it is twice the noise or more.

Shapes: m mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.surrogates.noise import SeedScatter

LEAST = 2.0  # signal over noise: under it a metric is warned about. The ceiling is about .88 there
FEWEST_MIXTURES = 3  # two have no rank correlation but 1 and -1
FEWEST_FREEDOM = 2.0  # degrees of freedom of the noise under which nobody is warned
DRAWS = 200  # of the noise: the ceiling of 24 mixtures is known to .005


ROUNDING = 1e-9  # noise, as a share of the signal, that is rounding


@dataclass(frozen=True)
class Reliability:
    """How well single runs tell mixtures apart by a metric.

    Attributes:
        signal: standard deviation over mixtures, cleaned of noise, in the metric's unit.
        noise: standard deviation between seeds of one mixture, with its degrees of freedom.
        mixtures: how many the signal is from.
        low: lower end of the two-sided 90 % interval of `ratio`.
        high: its upper end.
        ceiling: the rank correlation (Spearman) that the mixtures' true means would have with one
            run of each with a fresh seed: what noise lets any prediction reach. A surrogate of
            trials that share a seed may exceed it, because it predicts that seed's error too.
    """

    signal: float
    noise: SeedScatter
    mixtures: int
    low: float
    high: float
    ceiling: float

    @property
    def ratio(self) -> float:
        """Signal over noise; infinite where seeds change nothing."""
        return math.inf if self.silent else self.signal / self.noise.std

    @property
    def silent(self) -> bool:
        """Whether seeds change nothing but rounding: a trainer may not use them."""
        return self.noise.std <= ROUNDING * self.signal

    @property
    def poor(self) -> bool:
        """Whether the ratio is under `LEAST`, by a noise of at least 2 degrees of freedom."""
        return self.ratio < LEAST and self.noise.freedom >= FEWEST_FREEDOM

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; an infinite ratio is left to `mixopt.io.json_values.finite`."""
        return {
            "signal_over_noise": self.ratio,
            "low": self.low,
            "high": self.high,
            "signal": self.signal,
            "noise": self.noise.std,
            "freedom": self.noise.freedom,
            "mixtures": self.mixtures,
            "ceiling": self.ceiling,
        }


def reliability(
    runs: Iterable[Mapping[int, float]], noise: SeedScatter | None
) -> Reliability | None:
    """The reliability of a metric; None where it is unknown.

    It is unknown without repeats, of fewer than 3 mixtures, and of a metric that is the same for
    all. The interval is that of a variance component in a one-way layout: exact where all mixtures
    have as many runs and values are normal, approximate otherwise (Thomas and Hultquist 1978).

    Args:
        runs: of each mixture, its values by seed.
        noise: of single runs over seeds.

    Example:
        >>> from mixopt.surrogates.noise import seed_scatter
        >>> runs = [{0: 3.0, 1: 3.2, 2: 3.1}, {0: 2.0}, {0: 4.5}, {0: 2.5}, {0: 3.8}]
        >>> found = reliability(runs, seed_scatter(runs))
        >>> f"{found.ratio:.1f}, {found.low:.1f} to {found.high:.1f}; at most {found.ceiling:.2f}"
        '9.9, 2.1 to 26.3; at most 1.00'
    """
    known = [own for own in runs if own]
    means = np.array([np.mean(list(own.values())) for own in known])
    if noise is None or len(means) < FEWEST_MIXTURES or np.ptp(means) == 0:
        return None
    spread, share = float(means.var(ddof=1)), float(np.mean([1 / len(own) for own in known]))
    signal = math.sqrt(max(0.0, spread - share * noise.std**2))
    low, high = _interval(spread, share, noise, len(means))
    return Reliability(signal, noise, len(means), low, high, _ceiling(means, signal, noise.std))


def with_ceiling(spearman: float, of: Reliability | None, digits: int = 2) -> str:
    """A rank correlation, and its ceiling where that is known.

    >>> with_ceiling(0.8123, None)
    '0.81'
    >>> with_ceiling(0.8123, Reliability(2.0, SeedScatter(1.0, 4.0, 5), 24, 1.4, 4.2, 0.862), 3)
    '0.812 (ceiling 0.862)'
    """
    beside = "" if of is None else f" (ceiling {of.ceiling:.{digits}f})"
    return f"{spearman:.{digits}f}{beside}"


def _interval(spread: float, share: float, noise: SeedScatter, m: int) -> tuple[float, float]:
    """The two-sided 90 % interval of signal over noise.

    Args:
        spread: variance of the mixtures' means.
        share: of the noise's variance that is in it.
        noise: of single runs.
        m: mixtures.
    """
    from scipy.special import fdtri  # scipy.stats takes half a second to import

    if noise.std == 0:
        return math.inf, math.inf
    found = spread / noise.std**2
    quantiles = fdtri(m - 1, noise.freedom, [0.95, 0.05]).tolist()
    low, high = (math.sqrt(max(0.0, found / quantile - share)) for quantile in quantiles)
    return low, high


def _ceiling(means: np.ndarray, signal: float, noise: float) -> float:
    """Mean rank correlation of the mixtures' true means with one noisy run of each, over `DRAWS`.

    The true means are `means` (m,), shrunk to a deviation of `signal`. The formula for normal ones,
    6 / pi asin(p / 2) with the Pearson correlation p = signal / hypot(signal, noise), is up to .2
    too high where a few mixtures lie far from the rest; this is up to .1 too high there.
    """
    if signal == 0:
        return 0.0
    if noise == 0:
        return 1.0
    true = means * (signal / means.std(ddof=1))
    drawn = true + noise * np.random.default_rng(0).standard_normal((DRAWS, len(true)))
    middle = (len(true) + 1) / 2
    right = _ranks(true) - middle
    ranks = drawn.argsort(axis=1).argsort(axis=1) + 1 - middle  # draws are all different
    return float(np.mean(ranks @ right / np.sqrt((ranks**2).sum(axis=1) * (right**2).sum())))


def _ranks(values: np.ndarray) -> np.ndarray:
    """(m,) ranks from 1 on; equal values have the mean of theirs."""
    ordered = np.sort(values)
    first, last = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((first + last + 1) / 2)
