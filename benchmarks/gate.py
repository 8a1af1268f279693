"""How often the gate promotes where nothing is better, and how often it sees what is.

    python -m benchmarks.gate

Rates are of studies in which some candidate passes at a level though all mixtures are alike; power
is of a candidate that is two standard deviations of a run better. Beside it, a paired t test of
each candidate times the number of candidates. Coverage is of the first candidate's 90 % interval.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from mixopt.selection.comparison import compare

GAMES = 15_000
LEVELS = (0.1, 0.05, 0.02, 0.01)
LAYOUTS = ((3, 3), (4, 3), (2, 3), (3, 2), (3, 6))  # candidates, seeds
CASES = {  # standard deviations of natural and two candidates; of the others 1
    "equal": (1, 1, 1),
    "candidate x5": (1, 5, 1),
    "candidate x20": (1, 20, 1),
    "natural x2": (2, 1, 1),
    "natural x5": (5, 1, 1),
    "two x5": (1, 5, 5),
}


def drawn(k: int, n: int, scale: tuple[float, ...], better: float = 0.0) -> np.ndarray:
    """(games, k + 1, n) objectives of studies; the first candidate is `better`."""
    values = np.random.default_rng(0).standard_normal((GAMES, k + 1, n))
    values[:, :3] *= np.array(scale)[:, None]
    values[:, 1] -= better
    return values


def paired(values: np.ndarray) -> np.ndarray:
    """(games, k) p-values of paired t tests, times k."""
    pairs = values[:, 1:] - values[:, :1]
    k, n = pairs.shape[1:]
    statistic = pairs.mean(axis=2) / (pairs.std(axis=2, ddof=1) / np.sqrt(n))
    return np.asarray(k * t.cdf(statistic, df=n - 1))


def main() -> None:
    """Print a row per number of candidates, seeds and level, then one of coverage."""
    print("k n  level  " + "".join(f"{name:>15}" for name in CASES) + "   power gate / paired")
    for k, n in LAYOUTS:
        found = {
            name: [compare(game) for game in drawn(k, n, scale)] for name, scale in CASES.items()
        }
        best = {name: np.array([it.adjusted_p.min() for it in its]) for name, its in found.items()}
        clear = drawn(k, n, CASES["equal"], better=2.0)
        ours = np.array([compare(game).adjusted_p[0] for game in clear])
        theirs = paired(clear)[:, 0]
        for level in LEVELS:
            row = f"{k} {n}  {level:5}  "
            row += "".join(f"{(p <= level).mean():15.4f}" for p in best.values())
            print(row + f"   {(ours <= level).mean():.2f} / {(theirs <= level).mean():.2f}")
        inside = [
            np.mean([abs(it.difference[0]) <= it.half[0] for it in its]) for its in found.values()
        ]
        print(f"{k} {n}  inside " + "".join(f"{share:15.3f}" for share in inside))


if __name__ == "__main__":
    main()
