"""How often the gate promotes where nothing is better, and how often it sees what is.

    python -m benchmarks.gate

Rates are of searches in which some candidate passes at a level of .1 though all mixtures are alike;
power is of a candidate that is two noise deviations better. Beside it, a paired t test of each
candidate times the number of candidates.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from mixopt.comparison import compare

GAMES = 10_000
CASES = {"equal": (), "candidate x5": (1,), "natural x5": (0,), "two candidates x5": (1, 2)}


def passing(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(games, k) which candidates of `values` (games, k + 1, n) pass: the gate, paired t tests."""
    gate = np.array([compare(game).adjusted_p <= level for game in values])
    pairs = values[:, 1:] - values[:, :1]
    n, k = pairs.shape[2], pairs.shape[1]
    statistic = pairs.mean(axis=2) / (pairs.std(axis=2, ddof=1) / np.sqrt(n))
    return gate, t.cdf(statistic, df=n - 1) * k <= level


def main() -> None:
    """Print a row per number of candidates, seeds and level."""
    print("k n level  " + "  ".join(f"{name:>17}" for name in CASES) + "    power gate / paired")
    for k, n, level in ((3, 3, 0.1), (3, 3, 0.02), (4, 3, 0.1), (2, 3, 0.1), (3, 6, 0.1)):
        rng = np.random.default_rng(0)
        row = f"{k} {n} {level:5}  "
        for noisy in CASES.values():
            values = rng.standard_normal((GAMES, k + 1, n))
            values[:, list(noisy)] *= 5
            row += f"{passing(values, level)[0].any(axis=1).mean():17.3f}  "
        values = rng.standard_normal((GAMES, k + 1, n))
        values[:, 1] -= 2
        gate, paired = (found[:, 0].mean() for found in passing(values, level))
        print(row + f"    {gate:.2f} / {paired:.2f}")


if __name__ == "__main__":
    main()
