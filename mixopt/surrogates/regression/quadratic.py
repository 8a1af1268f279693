"""A quadratic on the simplex (MoDoMoDo, 2505.24871).

Shapes: n trials or mixtures, m domains; a group of p metrics measured on k trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.per_metric import PerMetric
from mixopt.surrogates.regression._ridge import Ridge, fit_ridge

# how much smaller than a slope an interaction is expected to be, tried from large to small
INTERACTIONS = (4.0, 1.0, 0.25)


def terms(weights: np.ndarray, interaction: float) -> np.ndarray:
    """Features (n, m + m (m + 1) / 2): r_j, then `interaction` x r_i r_j, i ≤ j.

    Their penalised squares sum to |b|² + |C|² / interaction² for a symmetric C. On the simplex
    r_i² = r_i - Σ_j≠i r_i r_j is redundant, but without squares the penalty falls on what is
    left unevenly: Spearman of the mean of 13 losses on other 1M runs of the RegMix table from
    24 / 64 / 256 runs .12 / .57 / .69, with them .37 / .70 / .75.
    """
    first, second = np.triu_indices(weights.shape[1])
    twice = np.where(first == second, 1.0, np.sqrt(2.0))
    return np.concatenate(
        [weights, interaction * twice * weights[:, first] * weights[:, second]], 1
    )


@dataclass(frozen=True)
class _Surface:
    """One group of metrics: each with the size of interactions that suits it."""

    parts: tuple[tuple[float, np.ndarray, Ridge], ...]  # interaction, columns, regression
    errors: np.ndarray

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        found = np.empty((len(weights), self.errors.shape[1]))
        for interaction, columns, ridge in self.parts:
            found[:, columns] = ridge.mean(terms(weights, interaction))
        return found

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        found = np.empty((len(weights), self.errors.shape[1]))
        for interaction, columns, ridge in self.parts:
            found[:, columns] = ridge.std(terms(weights, interaction))
        return found


class Quadratic(PerMetric):
    """L(r) = a + bᵀr + rᵀCr per metric (2505.24871).

    With 17 domains there are 170 coefficients, more than most swarms have runs: a ridge penalty and
    the size of interactions against slopes are those that predict left-out mixtures best, per
    metric, in closed form. Deviations are scaled so that nine tenths of the leave-one-out errors
    lie where they should.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "quadratic"

    def _learn(self, trials: TrialTable) -> _Surface:
        weights, values = trials.weights, trials.values
        fits = [fit_ridge(terms(weights, size), values, weights) for size in INTERACTIONS]
        losses = np.stack([(fit.errors**2).sum(axis=0) for fit in fits])
        chosen = losses.argmin(axis=0)
        parts, errors = [], np.empty_like(values)
        for number in np.unique(chosen):
            columns = np.flatnonzero(chosen == number)
            fit = fits[number].only(columns)
            parts.append((INTERACTIONS[number], columns, fit))
            errors[:, columns] = fit.errors
        return _Surface(tuple(parts), errors)
