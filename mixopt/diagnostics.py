"""How far a surrogate may be trusted: what it says of trials that it has not seen.

Shapes: n trials, q metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mixopt.errors import SurrogateError
from mixopt.objective import Objective
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate, at_one_fidelity
from mixopt.trials import TrialTable

CANDIDATES = ("gp", "lightgbm")  # the surrogates that are compared where none is asked for
NORMAL_90 = 1.6449  # |z| that 90 % of a standard normal stay below
OBJECTIVE = "objective"  # the name of the composed objective among the scores


@dataclass(frozen=True)
class Score:
    """Held-out quality of the predictions of one metric.

    Attributes:
        spearman: rank correlation of predicted and observed; NaN where either is constant.
        r2: share of the variance explained; below 0 if the mean would do better.
        mae: mean absolute error, in the metric's unit.
        coverage: share of observations within the predicted 90 % interval.
        n: how many held-out values it is from.
    """

    spearman: float
    r2: float
    mae: float
    coverage: float
    n: int


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of every trial by a surrogate that had not seen its mixture.

    Attributes:
        metrics: q names.
        observed: (n, q) values; NaN where not measured.
        mean: (n, q) predicted means.
        std: (n, q) deviations of a run: of the mean and of the noise together.
        objective_observed: (n,) the composed objective.
        objective_mean: (n,) its prediction.
        objective_std: (n,) deviation of a run.
        scores: by metric, and of `objective`.
    """

    metrics: tuple[str, ...]
    observed: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    objective_observed: np.ndarray
    objective_mean: np.ndarray
    objective_std: np.ndarray
    scores: dict[str, Score]

    def select(self, rows: np.ndarray) -> OutOfFold:
        """The trials at `rows` (indices or a mask) alone, scored anew."""
        observed, mean, std = self.observed[rows], self.mean[rows], self.std[rows]
        told, foretold = self.objective_observed[rows], self.objective_mean[rows]
        spread = self.objective_std[rows]
        scores = {
            metric: score(observed[:, j], mean[:, j], std[:, j])
            for j, metric in enumerate(self.metrics)
        }
        scores[OBJECTIVE] = score(told, foretold, spread)
        return OutOfFold(self.metrics, observed, mean, std, told, foretold, spread, scores)


def out_of_fold(
    table: TrialTable,
    objective: Objective,
    surrogate: Callable[[], Surrogate],
    folds: int = 5,
    seed: int = 0,
) -> OutOfFold:
    """Fit `folds` times, each time leaving out the mixtures that are then predicted.

    Repeats of one mixture stay in one fold. Give a table of one fidelity.

    Args:
        table: the trials.
        objective: scored beside the metrics.
        surrogate: makes a fresh, unfitted surrogate.
        folds: at most; fewer where there are fewer mixtures.
        seed: of the split.

    Raises:
        SurrogateError: fewer than four different mixtures.
    """
    _, group = np.unique(table.weights, axis=0, return_inverse=True)
    kinds = int(group.max()) + 1 if len(table) else 0
    if kinds < 4:
        raise SurrogateError(
            f"{kinds} different mixtures are too few to hold some out",
            mend="Run at least 4 trials on different mixtures",
        )
    fold = (np.random.default_rng(seed).permutation(kinds) % min(folds, kinds))[group.ravel()]
    mean, std = np.full_like(table.values, np.nan), np.full_like(table.values, np.nan)
    objective_mean, objective_std = np.full(len(table), np.nan), np.full(len(table), np.nan)
    for k in range(int(fold.max()) + 1):
        out = fold == k
        said = surrogate().fit(table.select(~out)).predict(table.weights[out])
        noise = np.nan_to_num(said.noise)
        mean[out], std[out] = said.mean, np.hypot(said.std, noise)
        objective_mean[out], objective_std[out] = objective.compose(
            said.mean, np.hypot(said.std, noise), said.metrics, said.correlation
        )
    observed = objective.of_table(table)
    return OutOfFold(
        table.metrics, table.values, mean, std, observed, objective_mean, objective_std, {}
    ).select(np.arange(len(table)))


@dataclass(frozen=True)
class Choice:
    """Which surrogate foretold held-out trials best.

    Attributes:
        name: registry name of the chosen one.
        scores: held-out score of the objective by registry name; empty if trials were too few.
    """

    name: str
    scores: dict[str, Score]


def choose(
    table: TrialTable,
    objective: Objective,
    seed: int = 0,
    names: Sequence[str] = CANDIDATES,
    **settings: Any,
) -> Choice:
    """The surrogate among `names` that ranks held-out trials best by the objective (Spearman).

    Ranking is what a search needs, and one hopeless mixture does not decide it, as it does a mean
    error. The first of them where trials are too few to hold some out.

    Args:
        table: the trials; compared at one fidelity, the most frequent if none is in `settings`.
        objective: what is compared.
        seed: of the split and of the surrogates.
        names: registry names.
        **settings: of the surrogates (see `Surrogate`).

    Raises:
        SurrogateError: fewer than 3 trials at the fidelity.
    """
    trials = at_one_fidelity(table, settings.get("fidelity"))
    scores = {}
    try:
        for name in names:
            kind = partial(make, name, seed=seed, objective=objective, **settings)
            scores[name] = out_of_fold(trials, objective, kind, seed=seed).scores[OBJECTIVE]
    except SurrogateError:
        return Choice(names[0], {})
    best = max(scores, key=lambda name: np.nan_to_num(scores[name].spearman, nan=-1.0))
    return Choice(best, scores)


def score(observed: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Score:
    """How well `mean` (n,) and `std` (n,) foretold `observed` (n,); NaN pairs are left out."""
    known = np.isfinite(observed) & np.isfinite(mean)
    y, m, s = observed[known], mean[known], std[known]
    if not len(y):
        return Score(np.nan, np.nan, np.nan, np.nan, 0)
    error = m - y
    total = float(((y - y.mean()) ** 2).sum())
    return Score(
        spearman=spearman(y, m),
        r2=1 - float((error**2).sum()) / total if total > 0 else np.nan,
        mae=float(np.abs(error).mean()),
        coverage=float((np.abs(error) <= NORMAL_90 * s + 1e-12).mean()),
        n=len(y),
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of `a` (n,) and `b` (n,), ties averaged; NaN where one is constant."""
    from scipy.stats import rankdata

    ranks_a, ranks_b = rankdata(a), rankdata(b)
    if len(a) < 2 or np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return float("nan")
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])
