"""The smallest difference that a selection can see, by the gate's own rule, before it is run.

Studies are simulated in which one candidate is better than the baseline, and all others are as good
as it; runs scatter alike. The same draws serve every difference, so that power grows with it.

Shapes: k candidates besides the baseline, n seeds, g simulated studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from mixopt.selection.comparison import Layouts

POWERS = (0.5, 0.8)
GAMES = 4_000  # a power of .5 is known to .008
MOST = 1e6  # deviations: no difference beyond it is looked for
CLOSE = 1e-3  # of a difference: it is not found any closer


def smallest_differences(
    candidates: int, pulls: Sequence[int], level: float, *, rejects: bool = False
) -> dict[float, float]:
    """Power → how much better a candidate has to be to be promoted so often; infinite for never.

    In standard deviations of a run beside the others of its seed: what seeds share cancels.
    Guardrails are not counted: they can only keep a mixture from being promoted.

    Args:
        candidates: k + 1 mixtures that are compared, the baseline among them; at least 2.
        pulls: runs of every candidate by the end of each phase (`gate.phase_pulls`).
        level: the largest adjusted p-value that is promoted, above 0.
        rejects: whether the worst candidate is dropped after each phase.

    Example:
        >>> found = smallest_differences(4, [3], level=0.1)
        >>> {power: round(difference) for power, difference in found.items()}
        {0.5: 2, 0.8: 3}
    """
    return dict(_found(candidates, tuple(pulls), level, rejects))


@lru_cache(maxsize=64)
def _found(
    candidates: int, pulls: tuple[int, ...], level: float, rejects: bool
) -> tuple[tuple[float, float], ...]:
    values = np.random.default_rng(0).standard_normal((GAMES, candidates, pulls[-1]))
    promoted = _rejecting(values, pulls, level) if rejects else _pooled(values, level)
    return tuple((power, _least(promoted, power)) for power in POWERS)


def _least(promoted: Callable[[float], np.ndarray], power: float) -> float:
    """The least difference at which the better candidate is `promoted` with that power."""
    low, high = 0.0, 1.0
    while promoted(high).mean() < power:
        low, high = high, 2 * high
        if low > MOST:
            return math.inf
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        if promoted(middle).mean() < power:
            low = middle
        else:
            high = middle
    return high


def _pooled(values: np.ndarray, level: float) -> Callable[[float], np.ndarray]:
    """Whether the first candidate is promoted, (g,) by how much it is better."""
    found = Layouts.of(values)

    def promoted(better: float) -> np.ndarray:
        moved = found.better_by(better)
        return _first_wins(moved.difference, moved.p_values(moved.n) <= level)

    return promoted


def _rejecting(
    values: np.ndarray, pulls: Sequence[int], level: float
) -> Callable[[float], np.ndarray]:
    """The same by Successive Rejects: the worst goes after each phase, the rest by paired tests."""
    from scipy.stats import t

    n, k = pulls[-1], values.shape[1] - 1

    def promoted(better: float) -> np.ndarray:
        moved = values.copy()
        moved[:, 1] -= better
        means = [moved[:, 1:, :target].mean(axis=2) for target in pulls[:-1]]  # (g, k) each
        live = np.ones((len(values), k), dtype=bool)
        for mean in means:
            worst = np.where(live, mean, -np.inf).argmax(axis=1)
            live[np.arange(len(live)), worst] = False
        pairs = moved[:, 1:] - moved[:, :1]
        difference = pairs.mean(axis=2)
        error = pairs.std(axis=2, ddof=1) / np.sqrt(n)
        return _first_wins(difference, live & (k * t.cdf(difference / error, n - 1) <= level))

    return promoted


def _first_wins(difference: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """(g,) whether the first candidate has the least `difference` (g, k) of those that pass."""
    passes = passes & (difference < 0)
    least = np.where(passes, difference, np.inf).argmin(axis=1)
    return np.asarray(passes[:, 0] & (least == 0))
