"""What every surrogate is: from a mixture to each metric, with uncertainty.

Shapes: n trials or mixtures, m domains, q metrics.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity

if TYPE_CHECKING:
    from botorch.models.model import Model

S = TypeVar("S", bound="Surrogate")
FEWEST_TRIALS = 3  # a metric measured less often than this is not modelled but refused
# Between two of its points a curve is read linearly in tokens^-.3 (Chinchilla's exponent is .28). A
# step left out of Data Mixing Laws' curves is so missed by .009 to .016 nats where its neighbours
# are less than a factor of two apart, which is what single points scatter by, and by .001 on the
# average; linearly in log tokens by up to .017 and .005. Steps 20k to 60k: .014 and .005.
FALL = 0.3
FARTHEST_APART = 2.0  # ratio of two points' tokens beyond which nothing is read between them


@dataclass(frozen=True)
class Prediction:
    """What a surrogate expects of n mixtures.

    Attributes:
        metrics: q names, the columns of `mean` and `std`.
        mean: (n, q) expected metrics, in their own unit (bits per byte).
        std: (n, q) standard deviation of the noise-free mean: what is not known about the
            mixture, not the scatter of one more run of it. Where `noise` is NaN: of one run.
        noise: (q,) standard deviation of one run around that mean (seeds, evaluation); NaN where
            the surrogate cannot separate it from its own error, so that `std` holds both.
        correlation: (q, q) correlation of the metrics' errors; None if taken as independent.
    """

    metrics: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    noise: np.ndarray
    correlation: np.ndarray | None = None

    def compose(self, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n,) of `objective`."""
        return objective.compose(self.mean, self.std, self.metrics, self.correlation)

    def holds_noise(self, objective: Objective) -> bool:
        """Whether the deviation of `compose` is of one run, at least in part, not of the mean."""
        columns = [self.metrics.index(metric) for metric in objective.metrics]
        return bool((np.isnan(self.noise[columns]) & (self.std[:, columns] > 0).any(axis=0)).any())


class Surrogate(ABC):
    """A regression from mixtures to metrics; one model per metric.

    A surrogate of your own derives from this class, is named `package.module:Name` in the study
    file and passes `mixopt.testing.surrogates.SurrogateConformance`.

    Args:
        seed: of whatever it draws; equal seeds and tables give equal predictions.
        fidelity: predict for this one; the table's most frequent fidelity if None.
        noise: standard deviation of a run by metric, where it was measured.
        objective: what predictions will be composed to, for surrogates that choose by it.
    """

    name: ClassVar[str]
    multi_fidelity: ClassVar[bool] = False
    """Whether it learns from trials of every fidelity and predicts at any; the others fit one."""
    supports_row_noise: ClassVar[bool] = False
    """Whether a row counts the less the more `TrialTable.noise_std` it has; see `learn`."""
    uses_known_noise: ClassVar[bool] = False
    """Whether a study gives it `noise` as measured by repeats; others are better off without."""
    offers_joint_posterior: ClassVar[bool] = False
    """Whether a fit may give it a `joint_posterior`."""

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.seed, self.fidelity, self.objective = seed, fidelity, objective
        self.noise = dict(noise or {})
        self._clear()

    def _clear(self) -> None:  # noqa: B027 -- a subclass may have nothing to clear
        """Set what a fit finds to what it is before one."""

    @abstractmethod
    def fit(self, table: TrialTable) -> Self:
        """Learn from `table`, forgetting what was learned before; returns itself.

        NaN values are left out metric by metric. Rows with equal weights are repeats, and welcome.

        Raises:
            SurrogateError: a metric has fewer than 3 values.
        """

    @abstractmethod
    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """What to expect of `mixtures` (n, m), in the order of the fitted table's domains.

        A metric that was constant over all trials is predicted as that constant, with deviation 0.

        Raises:
            SurrogateError: not fitted, wrong shape, or a fidelity that it cannot predict.
        """

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """(n, q) the means of `predict` alone, for the many candidates of a screening."""
        return self.predict(mixtures, fidelity).mean

    @property
    def joint_posterior(self) -> JointSurrogate | None:
        """The joint Gaussian posterior behind its predictions; None if there is none."""
        return None


def learn(surrogate: S, table: TrialTable) -> S:
    """`surrogate`, fitted to `table`: to its measured rows alone if it takes all rows for such.

    Raises:
        SurrogateError: too few trials.
    """
    return surrogate.fit(table if surrogate.supports_row_noise else table.measured)


class JointSurrogate(Surrogate):
    """A surrogate with a joint Gaussian posterior: what Bayesian optimization builds on."""

    offers_joint_posterior: ClassVar[bool] = True
    slopes: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None = None
    """From weights (n, m) to means and deviations (n, p) of `modelled` and their slopes (n, p, m);
    None where only automatic differentiation through `model` gives them."""

    @property
    def joint_posterior(self) -> JointSurrogate:
        """Itself."""
        return self

    @property
    @abstractmethod
    def modelled(self) -> tuple[str, ...]:
        """The metrics that `model` has outputs for, in its order: those that are not constant."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """A BoTorch model from raw weights (..., n, m) to `modelled`, at the predicted fidelity.

        Differentiable in the weights. Raises:
            SurrogateError: not fitted, or all metrics are constant.
        """

    @abstractmethod
    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and covariance (n, n) of the noise-free objective at `mixtures` (n, m).

        Args:
            mixtures: where.
            objective: composed after prediction; lower is better.
            fidelities: n of them, for surrogates of several; all at the predicted one if None.
        """


class OncePerRun(JointSurrogate):
    """A surrogate of several fidelities that counts a run once: as it stood at the target's tokens.

    A run that went on past them has been measured there by its curve; the others count with what
    they came to (`as_it_stood`). Asked about another fidelity that curves were measured at, it
    answers as if fitted for that one.
    """

    def _clear(self) -> None:
        self._curves: TrialTable | None = None
        self._elsewhere: dict[Fidelity, Self] = {}

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`."""
        target = self._wanted(table)
        once = in_order(table if target is None else as_it_stood(table, target.tokens))
        self._curves = table if len(once) < len(table) else None
        self._elsewhere = {}
        self._learn(once, target)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`; elsewhere on the curves than at the target it costs a fit."""
        return self._for(fidelity)._predict(mixtures, fidelity)

    @abstractmethod
    def _wanted(self, table: TrialTable) -> Fidelity | None:
        """The fidelity that `table` is to be learned from for; None if there is none."""

    @abstractmethod
    def _learn(self, once: TrialTable, target: Fidelity | None) -> None:
        """`fit` to a table that has every run once."""

    @abstractmethod
    def _predict(self, mixtures: np.ndarray, fidelity: Fidelity | None) -> Prediction:
        """`predict` by what was learned."""

    def _for(self, fidelity: Fidelity | None) -> Self:
        """Itself, or its like fitted for `fidelity`, if only curves were measured there."""
        if fidelity is None or self._curves is None:
            return self
        if self._knows(fidelity) or not self._curves.at(fidelity).any():
            return self
        if fidelity not in self._elsewhere:
            other = copy.copy(self)
            other._clear()
            other.fidelity = fidelity
            other._learn(in_order(as_it_stood(self._curves, fidelity.tokens)), fidelity)
            self._elsewhere[fidelity] = other
        return self._elsewhere[fidelity]

    @abstractmethod
    def _knows(self, fidelity: Fidelity) -> bool:
        """Whether it learned from trials at `fidelity`."""


def compose_joint(
    objective: Objective,
    metrics: tuple[str, ...],
    means: np.ndarray,
    covariances: Mapping[str, np.ndarray],
    correlation: np.ndarray,
    kind: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and covariance (n, n) of `objective` from those of its metrics.

    Args:
        objective: its weights.
        metrics: q names, the columns of `means`.
        means: (n, q).
        covariances: metric → (n, n); a metric that is left out has none.
        correlation: (q, q) of the metrics' errors: the diagonal agrees with
            `Objective.compose`, and what lies beside it is scaled alike.
        kind: (n,) which of several `correlation` (k, q, q) each row's errors have.
    """
    total = np.zeros((len(means), len(means)))
    spread = np.zeros_like(means)
    for metric, covariance in covariances.items():
        total += objective.weights.get(metric, 0.0) ** 2 * covariance
        spread[:, metrics.index(metric)] = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    mean, std = objective.compose(means, spread, metrics)
    for k, tied in enumerate(correlation if kind is not None else correlation[None]):
        rows = slice(None) if kind is None else kind == k
        std[rows] = objective.compose(means[rows], spread[rows], metrics, tied)[1]
    own = np.sqrt(np.maximum(np.diag(total), 1e-300))
    return mean, total * np.outer(std / own, std / own)


def read_at(table: TrialTable, tokens: float) -> TrialTable:
    """`table`, and a row at `tokens` of every run whose curve passes them without one.

    It is read between the run's neighbouring rows (see FALL), if those are at most a factor of two
    apart: farther, the curve bends by more than its points scatter.
    """
    order = np.lexsort((table.tokens, table.runs))
    low, high = order[:-1], order[1:]
    before, after = table.tokens[low], table.tokens[high]
    passes = (table.runs[low] == table.runs[high]) & (before < tokens) & (tokens < after)
    passes &= after <= FARTHEST_APART * before
    if not passes.any():
        return table
    low, high, before, after = low[passes], high[passes], before[passes], after[passes]
    left = before**-FALL
    share = ((left - tokens**-FALL) / (left - after**-FALL))[:, None]
    rows = np.concatenate([np.arange(len(table)), low])
    read = (1 - share) * table.values[low] + share * table.values[high]
    return dataclasses.replace(
        table.select(rows),
        values=np.concatenate([table.values, read]),
        tokens=np.concatenate([table.tokens, np.full(len(low), float(tokens))]),
    )


def as_it_stood(table: TrialTable, tokens: float) -> TrialTable:
    """Every run of `table` once: at `tokens` if its curve goes so far (`read_at`), else its end."""
    whole = read_at(table, tokens)
    order = np.lexsort((np.where(whole.tokens == tokens, np.inf, whole.tokens), whole.runs))
    last = np.append(whole.runs[order][1:] != whole.runs[order][:-1], True)
    return whole.select(np.sort(order[last[: len(order)]]))


def in_order(table: TrialTable) -> TrialTable:
    """The rows of `table` by fidelity, mixture, seed and values, so that equal runs fit alike.

    The search for hyperparameters sums over rows. Another order rounds that sum differently, and
    the search may then end elsewhere: deviations of a multi-task Gaussian process were off by 47 %.
    """
    keys = (table.params, table.tokens, *table.weights.T, table.seeds, *table.values.T)
    return table.select(np.lexsort(keys[::-1]))


def at_one_fidelity(table: TrialTable, fidelity: Fidelity | None) -> TrialTable:
    """The trials of `table` at `fidelity`, or else at the most frequent one.

    For surrogates that know nothing of size and tokens. Of equally frequent ones the largest. Where
    a fidelity is given, curves are read there (`read_at`).

    Raises:
        SurrogateError: there are fewer than 3.
    """
    if fidelity is not None:
        table = read_at(table, fidelity.tokens)
    costs = np.stack([table.params, table.tokens], axis=1)
    if fidelity is not None:
        wanted = np.array([fidelity.params, fidelity.tokens], dtype=float)
    else:
        kinds, counts = np.unique(costs, axis=0, return_counts=True)
        wanted = kinds[np.flatnonzero(counts == counts.max())[-1]] if len(kinds) else np.zeros(2)
    found = table.select((costs == wanted).all(axis=1))
    if len(found) < FEWEST_TRIALS:
        raise SurrogateError(
            f"{len(found)} trials at {wanted[0]:g} parameters and {wanted[1]:g} tokens, "
            f"{FEWEST_TRIALS} are needed",
            hint="Run more trials at this fidelity",
        )
    return found


def measured(table: TrialTable, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (k,), weights (k, m) and values (k,) of the trials that have `metric`.

    Raises:
        SurrogateError: there are fewer than 3.
    """
    column = table.values[:, table.metrics.index(metric)]
    rows = np.flatnonzero(np.isfinite(column))
    if len(rows) < FEWEST_TRIALS:
        raise SurrogateError(
            f"{len(rows)} values, {FEWEST_TRIALS} are needed",
            where=metric,
            hint="Drop the metric from the objective or evaluate more trials on it",
        )
    return rows, table.weights[rows], column[rows]


def checked(mixtures: np.ndarray, domains: tuple[str, ...] | None) -> np.ndarray:
    """`mixtures` as (n, m) float64.

    Raises:
        SurrogateError: the surrogate is not fitted (`domains` is None) or m is wrong.
    """
    if domains is None:
        raise SurrogateError("predict was called before fit", hint="Fit it to a trial table first")
    weights = np.asarray(mixtures, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != len(domains):
        raise SurrogateError(f"mixtures of shape {weights.shape}, not (n, {len(domains)})")
    return weights


def error_correlation(
    errors: np.ndarray, before: np.ndarray | None = None, worth: float | None = None
) -> np.ndarray:
    """(q, q) correlation of held-out errors, shrunk to `before` where trials are few.

    Args:
        errors: (n, q); NaN errors are left out pair by pair, metrics without any err alone.
        before: (q, q) what is expected of it. If None, that all pairs of metrics are alike, as the
            mean of all pairs is (Ledoit and Wolf 2004), if it is not below 0. Shrunk to
            independence instead, the mean of 22 losses lay in its 90 % interval .75 of the time
            (5Mix, 10 runs of one size), shrunk so .87.
        worth: trials that `before` counts as; q if None.
    """
    q = errors.shape[1]
    known = np.isfinite(errors)
    square = np.where(known, errors, 0.0) ** 2
    scale = np.sqrt(square.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    z = np.where(known, errors, 0.0) / np.where(scale > 0, scale, 1.0)
    pairs = known.T.astype(float) @ known
    pairs[scale <= 0] = pairs[:, scale <= 0] = 0.0
    np.fill_diagonal(pairs, 0.0)
    total = z.T @ z
    np.fill_diagonal(total, 0.0)
    if before is None:
        alike = max(0.0, total.sum() / max(pairs.sum(), 1.0))
        before = np.where(np.outer(scale > 0, scale > 0), alike, 0.0)
    share = float(q) if worth is None else worth
    tied = np.clip((total + share * before) / (pairs + share), -1.0, 1.0)
    np.fill_diagonal(tied, 1.0)
    return _positive(tied)


def _positive(correlation: np.ndarray) -> np.ndarray:
    """The nearest matrix without negative eigenvalues: pairs known from different trials differ."""
    values, vectors = np.linalg.eigh(correlation)
    if values[0] >= 0:
        return correlation
    mended = (vectors * np.maximum(values, 0.0)) @ vectors.T
    scale = np.sqrt(np.maximum(np.diag(mended), 1e-12))
    return np.asarray(mended / np.outer(scale, scale))
