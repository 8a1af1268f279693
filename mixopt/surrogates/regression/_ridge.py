"""Ridge regression whose penalty is the one that predicts held-out mixtures best.

Everything in closed form from one singular value decomposition: all penalties, all metrics, the
errors that every mixture would have if it were left out, and the deviation of a prediction.

Shapes: n trials or mixtures, f features, p metrics, r ≤ min(n, f) directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixopt.surrogates.per_metric import calibration_factor

# as shares of the mean squared singular value: from none to one that leaves only the mean
PENALTIES = np.geomspace(1e-8, 1e4, 49)

LARGE = 1024  # from here on by eigenvalues of the Gram matrix, several times faster


@dataclass(frozen=True)
class Ridge:
    """Bayesian linear regression: intercept flat, coefficients normal with one variance a metric.

    Attributes:
        centre: (f,) mean of the features.
        level: (p,) mean of the values.
        coefficients: (f, p).
        directions: (f, r) right singular vectors of the centred features.
        strengths: (r,) squared singular values.
        penalty: (p,) what is added to them.
        scale: (p,) deviation of a run that is predicted from endless data.
        trials: how many rows there were.
        errors: (n, p) of each row, predicted without its mixture.
    """

    centre: np.ndarray
    level: np.ndarray
    coefficients: np.ndarray
    directions: np.ndarray
    strengths: np.ndarray
    penalty: np.ndarray
    scale: np.ndarray
    trials: int
    errors: np.ndarray

    def mean(self, features: np.ndarray) -> np.ndarray:
        """(b, p) at `features` (b, f)."""
        return np.asarray(self.level + (features - self.centre) @ self.coefficients)

    def std(self, features: np.ndarray) -> np.ndarray:
        """(b, p) deviation of a run at `features` (b, f)."""
        inside, outside = self._parts(features)
        spread = self._inverse()
        leverage = 1 / self.trials + inside**2 @ spread + outside[:, None] / self.penalty
        return np.asarray(self.scale * np.sqrt(1 + leverage))

    def covariance(self, features: np.ndarray) -> np.ndarray:
        """(p, b, b) of the regression itself at `features` (b, f): without what a run adds."""
        centred = features - self.centre
        inside = centred @ self.directions
        spread = self._inverse()
        # what no trial has seen keeps its prior variance
        unseen = centred @ centred.T - inside @ inside.T
        total = np.einsum("br,rp,cr->pbc", inside, spread, inside, optimize=True)
        total += unseen / self.penalty[:, None, None] + 1 / self.trials
        return np.asarray(total * self.scale[:, None, None] ** 2)

    def only(self, columns: np.ndarray) -> Ridge:
        """The regression of those metrics alone."""
        return replace(
            self,
            level=self.level[columns],
            coefficients=self.coefficients[:, columns],
            penalty=self.penalty[columns],
            scale=self.scale[columns],
            errors=self.errors[:, columns],
        )

    def _inverse(self) -> np.ndarray:
        return np.asarray(1 / (self.strengths[:, None] + self.penalty))

    def _parts(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along the directions (b, r), and the squared length (b,) beside them."""
        centred = features - self.centre
        inside = centred @ self.directions
        return inside, np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)


def fit_ridge(features: np.ndarray, values: np.ndarray, weights: np.ndarray) -> Ridge:
    """The ridge regression of `values` (n, p) on `features` (n, f).

    Rows with equal `weights` (n, m) are repeats of a mixture and left out together: they are fitted
    as their mean, counted as often as they are.
    """
    _, first, kind, counts = np.unique(
        weights, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    kind = kind.ravel()
    count = counts[:, None].astype(float)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, kind, values)
    means, points = sums / count, features[first]
    n = float(counts.sum())
    centre, level = (count * points).sum(axis=0) / n, (count * means).sum(axis=0) / n

    left, strengths, directions = _decompose(np.sqrt(count) * (points - centre))
    unit = float(strengths.mean()) if len(strengths) else 1.0
    along = left.T @ (np.sqrt(count) * (means - level))  # (r, p)

    # What each mixture's leverage and fit leave free is summed up from what it is made of. As
    # 1 - leverage it would cancel where there are more features than trials.
    squared = left**2
    beside = np.maximum(1 - counts / n - squared.sum(axis=1), 0.0)
    beside[beside < 1e-10] = 0.0
    unfitted = np.sqrt(count) * (means - level) - left @ along
    best = np.full(values.shape[1], np.inf)
    penalty = np.full(values.shape[1], PENALTIES[-1] * unit)
    errors, inflate = values - level, np.ones_like(values)
    for candidate in PENALTIES[::-1] * unit:  # of equals the simplest
        lost = candidate / (strengths + candidate)
        free = np.maximum(beside + squared @ lost, 1e-12)
        missed = (unfitted + left @ (lost[:, None] * along)) / (np.sqrt(count) * free[:, None])
        # a repeat misses by what its mixture's mean misses, and by its own distance from that
        row_errors = values - means[kind] + missed[kind]
        loss = (row_errors**2).sum(axis=0)
        better = loss < best * (1 - 1e-9)
        best[better], penalty[better] = loss[better], candidate
        errors = np.where(better, row_errors, errors)
        left_out = ((1 - free) / (counts * free))[kind, None]
        inflate = np.where(better, np.sqrt(1 + left_out), inflate)
    spread = strengths[:, None] + penalty
    coefficients = directions @ (np.sqrt(strengths)[:, None] * along / spread)
    return Ridge(
        centre=centre,
        level=level,
        coefficients=coefficients,
        directions=directions,
        strengths=strengths,
        penalty=penalty,
        scale=np.maximum(calibration_factor(errors, inflate), 1e-12 * np.abs(values).max(axis=0)),
        trials=round(n),
        errors=errors,
    )


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left (n, r) and right (f, r) singular vectors and squared singular values (r,), none of 0."""
    if min(matrix.shape) <= LARGE:
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
        kept = singular > 1e-10 * max(float(singular[:1].sum()), 1e-300)
        return left[:, kept], singular[kept] ** 2, right[kept].T
    # what is lost in squares lies far below the least penalty
    tall = matrix.shape[0] > matrix.shape[1]
    strengths, vectors = np.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)
    kept = strengths > 1e-12 * strengths[-1]
    strengths, vectors = strengths[kept], vectors[:, kept]
    others = (matrix if tall else matrix.T) @ vectors / np.sqrt(strengths)
    return (others, strengths, vectors) if tall else (vectors, strengths, others)
