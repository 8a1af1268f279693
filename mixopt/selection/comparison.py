"""Several candidates against one baseline over the same seeds: intervals and adjusted p-values.

Many-to-one comparisons (Dunnett 1955) in a two-way layout, candidate + seed. Pooled residuals of
all rows see more than a paired t test of each candidate, which has n - 1 degrees of freedom; but
they pass too many where one mixture is noisier than the others. So a candidate's standard error is
the larger of the pooled one and that of its own pairs, and what the largest of k such statistics
does under equal noise is drawn once. Three guards hold where noise is unequal:

- An adjusted p-value is at least the candidate's own paired one times a factor from 1 to k. It
  rises with the candidates, for several may be noisy, and as p falls, for a noisy baseline that few
  seeds do not show matters most there.
- It is at least k times that (Bonferroni) where the baseline is noisy: all differences share it.
- It is at most `CLEAR` k times that, so that a noisy rival cannot hide a clear difference.

An interval is at least Student's of the candidate's own pairs, and so holds under unequal noise.

How often it passes wrongly and rightly: `python -m benchmarks.gate`.

Shapes: k candidates, n seeds, g layouts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

DRAWS = 50_000  # of the null: at a level of .1 its p-values are known to .0013
CLEAR = 20  # the last guard passes 1/20 of the level at most where nothing is better
PER_RIVAL = 0.05  # by which the first guard rises with each candidate beyond two
USUAL, FALL = 0.1, 0.25  # below p = USUAL the first guard grows as (USUAL / p)^FALL
MOST_FREEDOM = 60  # degrees of freedom beyond which the null is drawn with so many


@dataclass(frozen=True)
class Comparison:
    """How k candidates differ from the baseline.

    Attributes:
        difference: (k,) mean of candidate - baseline.
        error: (k,) its standard error.
        half: (k,) half its two-sided 90 % interval, for one candidate by itself. It leaves out 0
            where `p` is below .05.
        p: (k,) one-sided p-value that a candidate by itself is not lower.
        adjusted_p: (k,) the same for the best of k.
    """

    difference: np.ndarray
    error: np.ndarray
    half: np.ndarray
    p: np.ndarray
    adjusted_p: np.ndarray


def compare(values: np.ndarray) -> Comparison:
    """Compare rows 1 … k of `values` (k + 1, n) with row 0; lower is better. n is at least 2."""
    found = Layouts.of(values[None])
    return Comparison(
        difference=found.difference[0],
        error=np.sqrt(found.variance[0] / found.n),
        half=found.half[0],
        p=found.p_values(found.n, adjusted=False)[0],
        adjusted_p=found.p_values(found.n)[0],
    )


def seeds_to_pass(values: np.ndarray, row: int, level: float, most: int) -> int | None:
    """Seeds at which row `row`'s difference and scatter in `values` would pass at `level`.

    None where it is not below the baseline, or beyond `most`.
    """
    found = Layouts.of(values[None])
    at = row - 1
    if found.difference[0, at] >= 0 or found.p_values(most)[0, at] > level:
        return None
    fails, passes = 1, most  # p falls with n: halve what lies between
    while passes - fails > 1:
        n = (fails + passes) // 2
        if found.p_values(n)[0, at] <= level:
            passes = n
        else:
            fails = n
    return passes


@dataclass(frozen=True)
class Layouts:
    """What the rows of g layouts show: differences, and variances of a difference of single runs.

    Attributes:
        n: seeds of each row.
        difference: (g, k) means of candidate - baseline.
        own: (g, k) variances by a candidate's own pairs.
        variance: (g, k) the larger of that and twice the pooled one.
        shared: (g,) whether much of the noise is the baseline's.
    """

    n: int
    difference: np.ndarray
    own: np.ndarray
    variance: np.ndarray
    shared: np.ndarray

    @property
    def k(self) -> int:
        """Candidates of each."""
        return int(self.difference.shape[1])

    @classmethod
    def of(cls, values: np.ndarray) -> Layouts:
        """The layouts of `values` (g, k + 1, n), the baseline's row first."""
        pairs = values[:, 1:] - values[:, :1]  # (g, k, n)
        apart = pairs - pairs.mean(axis=2, keepdims=True)
        scatter = apart @ apart.swapaxes(1, 2) / (values.shape[2] - 1)
        variance, shared = _variances(scatter)
        return cls(
            n=values.shape[2],
            difference=pairs.mean(axis=2),
            own=np.diagonal(scatter, axis1=1, axis2=2),
            variance=variance,
            shared=shared,
        )

    def better_by(self, difference: float) -> Layouts:
        """The same, had the first candidate been better by `difference`."""
        moved = self.difference.copy()
        moved[:, 0] -= difference
        return replace(self, difference=moved)

    @property
    def half(self) -> np.ndarray:
        """(g, k) half the two-sided 90 % intervals of the differences."""
        from scipy.special import stdtrit

        null = _null(self.k, min(self.n - 1, MOST_FREEDOM))
        paired = float(stdtrit(self.n - 1, 0.95)) * np.sqrt(self.own / self.n)
        return np.asarray(np.maximum(null.half * np.sqrt(self.variance / self.n), paired))

    def p_values(self, n: int, adjusted: bool = True) -> np.ndarray:
        """(g, k) one-sided p-values as of `n` seeds, of one candidate or of the best of all."""
        from scipy.special import stdtr  # scipy.stats takes half a second to import

        null = _null(self.k, min(n - 1, MOST_FREEDOM))
        draws = null.largest if adjusted else null.single
        statistic = _over(-self.difference, np.sqrt(self.variance / n))
        above = len(draws) - np.searchsorted(draws, statistic, side="left")
        drawn = (1 + above) / (1 + len(draws))
        paired = stdtr(n - 1, -_over(-self.difference, np.sqrt(self.own / n)))
        if not adjusted:
            return np.asarray(np.maximum(drawn, paired))
        guarded = np.maximum(drawn, self._times(paired) * paired)
        return np.asarray(np.minimum(1.0, np.minimum(guarded, CLEAR * self.k * paired)))

    def _times(self, paired: np.ndarray) -> np.ndarray:
        """(g, k) how many times its paired p-value (g, k) an adjusted one is at least."""
        grown = np.maximum(1.0, USUAL / np.maximum(paired, 1e-300)) ** FALL
        usual = np.minimum(self.k, grown * (1 + PER_RIVAL * max(0, self.k - 2)))
        return np.where(self.shared[:, None], float(self.k), usual)


def _variances(scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(g, k) variances of a difference, and (g,) whether the baseline's noise is much of them.

    Args:
        scatter: (g, k, k) covariances of the pairs of g layouts. Under equal noise s they are
            s² (1 + 1'), by which the pooled s² is their trace after whitening, over k.
    """
    k = scatter.shape[-1]
    own = np.diagonal(scatter, axis1=1, axis2=2)
    pooled = (own.sum(axis=1) - scatter.sum(axis=(1, 2)) / (k + 1)) / k
    ratio = _over(own.mean(axis=1), 2 * pooled)
    # 1 under equal noise, (k + 1) / 2 where only the baseline scatters: halfway, at most 1.5
    shared = ratio > min((1 + (k + 1) / 2) / 2, 1.5)
    return np.maximum(own, 2 * pooled[:, None]), shared & (k > 1)


@dataclass(frozen=True)
class _Null:
    """Statistics under equal noise, drawn and sorted."""

    single: np.ndarray  # (DRAWS,) of one candidate
    largest: np.ndarray  # (DRAWS,) the largest of k
    half: float  # half a two-sided 90 % interval of one, in standard errors


@lru_cache(maxsize=256)
def _null(k: int, freedom: int) -> _Null:
    """What k statistics are under equal noise, with `freedom` degrees of freedom for each pair."""
    rng = np.random.default_rng([k, freedom])
    root = np.linalg.cholesky(np.eye(k) + 1)
    single, largest = [], []
    for size in [1000] * (DRAWS // 1000):
        pairs = rng.standard_normal((size, freedom, k)) @ root.T
        variance, _ = _variances(pairs.swapaxes(1, 2) @ pairs / freedom)
        statistic = rng.standard_normal((size, k)) @ root.T / np.sqrt(variance)
        single.append(statistic[:, 0])
        largest.append(statistic.max(axis=1))
    one, most = np.sort(np.concatenate(single)), np.sort(np.concatenate(largest))
    return _Null(one, most, float(np.quantile(one, 0.95)))


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Their ratio, infinite over 0, and -inf for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(above / below, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return np.asarray(ratio)
