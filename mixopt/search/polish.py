"""The last steps to an optimum, by gradients from finite differences: no surrogate needs its own.

Shapes: s starts, m domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixopt.core.space import MixtureSpace

Score = Callable[[np.ndarray], np.ndarray]

STEP = 1e-4  # of √w; 1e-2 to 1e-7 ended alike on a Gaussian process of 512 RegMix runs


def polish(score: Score, space: MixtureSpace, starts: np.ndarray, steps: int) -> np.ndarray:
    """Local minima (s, m) of `score` in the space near `starts` (s, m), by SLSQP on √w.

    One call of `score` with 2m mixtures gives a gradient, which is what makes it cheap: a
    surrogate predicts two hundred mixtures in little more time than one. Differences are taken
    along the simplex. A start that gets no better is given back as it came: a score of trees has
    no slope to follow.
    """
    found = np.array([_polished(score, space, start, steps) for start in starts])
    before, after = score(starts), score(found)
    return np.where((after < before)[:, None], found, starts)


def _polished(score: Score, space: MixtureSpace, start: np.ndarray, steps: int) -> np.ndarray:
    box, m = space.polytope, len(start)

    def mixtures(roots: np.ndarray) -> np.ndarray:
        squares = roots**2
        return np.asarray(squares / squares.sum(axis=-1, keepdims=True))

    def value_and_slope(roots: np.ndarray) -> tuple[float, np.ndarray]:
        # at the border of the orthant the difference becomes one-sided
        up, down = roots + STEP, np.maximum(roots - STEP, 0.0)
        around = np.repeat(roots[None], 2 * m + 1, axis=0)
        around[np.arange(m), np.arange(m)] = up
        around[m + np.arange(m), np.arange(m)] = down
        values = score(mixtures(around))
        return float(values[-1]), (values[:m] - values[m:-1]) / (up - down)

    def rows(matrix: np.ndarray, limits: np.ndarray, kind: str) -> dict[str, Any]:
        return {
            "type": kind,
            "fun": lambda u: limits - matrix @ u**2,
            "jac": lambda u: -2 * matrix * u,
        }

    constraints = [rows(np.ones((1, m)), np.ones(1), "eq")]
    if len(box.matrix):
        constraints.append(rows(box.matrix, box.limits, "ineq"))
    from scipy.optimize import minimize  # a report needs this module's neighbours, not this

    found = minimize(
        value_and_slope,
        np.sqrt(start),
        jac=True,
        method="SLSQP",
        bounds=list(zip(np.sqrt(box.lower).tolist(), np.sqrt(box.upper).tolist(), strict=True)),
        constraints=constraints,
        options={"maxiter": steps, "ftol": 1e-8},
    )
    # SLSQP may end a little outside, or nowhere where the score is rough
    return space.project(found.x**2) if np.isfinite(found.x).all() else start
