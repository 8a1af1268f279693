"""Our batched Levenberg–Marquardt against scipy's, in fits of the mixing law.

    python -m benchmarks.least_squares --runs 24 --repeats 3

Both solve the same problems from the same starts: a law per metric, penalty and fold. Prints
seconds of a fit (medians), their ratio, and the largest difference of the predictions.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from mixopt.surrogates.regression import _least_squares, mixing_law
from mixopt.surrogates.regression._least_squares import LeastSquares, Residuals
from mixopt.testing.surrogates import example_table

OURS = _least_squares.least_squares


def by_scipy(
    residuals: Residuals,
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    iterations: int = 100,
    tolerance: float = 1e-9,
) -> LeastSquares:
    """One problem after the other by `scipy.optimize.least_squares`, with our derivatives."""
    parameters, cost = torch.empty_like(start), torch.empty(len(start), dtype=start.dtype)
    for number in range(len(start)):
        problem = torch.tensor([number])

        def both(theta: np.ndarray, problem: Tensor = problem) -> tuple[np.ndarray, np.ndarray]:
            r, jacobian = residuals(torch.from_numpy(theta)[None], problem)
            return r[0].numpy(), jacobian[0].numpy()

        found = optimize.least_squares(
            lambda theta, both=both: both(theta)[0],
            start[number].clamp(lower, upper).numpy(),
            jac=lambda theta, both=both: both(theta)[1],
            bounds=(lower.numpy(), upper.numpy()),
            ftol=tolerance,
            xtol=tolerance,
            max_nfev=iterations,
        )
        parameters[number], cost[number] = torch.from_numpy(found.x), found.cost
    return LeastSquares(parameters, cost, torch.ones(len(start), dtype=torch.bool))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=24, help="rows that are fitted to")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    table = example_table(arguments.runs)
    asked = np.random.default_rng(1).dirichlet(np.ones(len(table.domains)), 200)
    seconds: dict[str, list[float]] = {"ours": [], "scipy": []}
    means: dict[str, np.ndarray] = {}
    for _ in range(arguments.repeats):
        for name, solver in (("ours", OURS), ("scipy", by_scipy)):
            mixing_law.least_squares = solver  # type: ignore[assignment]
            begun = time.perf_counter()
            fitted = mixing_law.MixingLaw().fit(table)
            seconds[name].append(time.perf_counter() - begun)
            means[name] = fitted.predict(asked).mean
    mixing_law.least_squares = OURS
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "scipy"))
    apart = np.abs(means["ours"] - means["scipy"]).max()
    print(
        f"{arguments.runs} runs, {len(table.metrics)} metrics: ours {ours:.2f} s, scipy "
        f"{theirs:.2f} s, ratio {theirs / ours:.1f}; predictions differ by at most {apart:.1g}"
    )


if __name__ == "__main__":
    main()
