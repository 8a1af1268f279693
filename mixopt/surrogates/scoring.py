"""How far a surrogate may be trusted: its scores on trials that it was not fitted to.

Shapes: n trials, q metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate, at_one_fidelity

# The surrogates that are compared where none is asked for: of one fidelity, and of several.
# What wins where is in docs/benchmarks.md; ties go to the first.
CANDIDATES = ("effective-data", "gp", "linear")
CHAINED = ("cokriging", "nested-laws")
# Trees see thresholds that smooth surrogates miss, but need runs: 128 equal what the law
# makes of 24 (RegMix). On a public swarm of 512 with thresholds they ranked .96, the law .88.
TREES, RUNS_FOR_TREES = "lightgbm", 128
Split = tuple[np.ndarray, np.ndarray]  # masks (n,): learned from, predicted
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

    def turned(self, sign: int) -> OutOfFold:
        """The same with `sign` (1 or -1) times the objective: no score changes."""
        observed, mean = sign * self.objective_observed, sign * self.objective_mean
        return replace(self, objective_observed=observed, objective_mean=mean)

    def select(self, rows: np.ndarray) -> OutOfFold:
        """The trials at `rows` (indices or a mask) alone, scored anew."""
        observed, mean, std = self.observed[rows], self.mean[rows], self.std[rows]
        measured, predicted = self.objective_observed[rows], self.objective_mean[rows]
        spread = self.objective_std[rows]
        scores = {
            metric: score(observed[:, j], mean[:, j], std[:, j])
            for j, metric in enumerate(self.metrics)
        }
        scores[OBJECTIVE] = score(measured, predicted, spread)
        return OutOfFold(self.metrics, observed, mean, std, measured, predicted, spread, scores)


def out_of_fold(
    table: TrialTable,
    objective: Objective,
    surrogate: Callable[[], Surrogate],
    folds: int | None = None,
    seed: int = 0,
    at: Fidelity | None = None,
) -> OutOfFold:
    """Fit `folds` times, each time leaving out the mixtures that are then predicted.

    Repeats of one mixture stay in one fold, and so do its trials at other fidelities.

    Args:
        table: the trials.
        objective: scored beside the metrics.
        surrogate: makes a fresh, unfitted surrogate.
        folds: at most; fewer where there are fewer mixtures. 5 if None, and fewer where many are
            predicted: half of them predict the other half well.
        seed: of the split.
        at: only trials at this fidelity are predicted, and are what the result is about; the others
            are learned from. Every trial if None: give a table of one fidelity.

    Raises:
        SurrogateError: fewer than four different mixtures.
    """
    asked = np.ones(len(table), dtype=bool) if at is None else table.at(at)
    splits = [(~out, out & asked) for out in _folds(table, asked, folds, seed)]
    return _predicted(table, objective, splits, at, surrogate)


def _predicted(
    table: TrialTable,
    objective: Objective,
    splits: Sequence[Split],
    at: Fidelity | None,
    surrogate: Callable[[], Surrogate],
) -> OutOfFold:
    """Predictions of what the `splits` leave out, in the table's order."""
    mean, std = np.full_like(table.values, np.nan), np.full_like(table.values, np.nan)
    objective_mean, objective_std = np.full(len(table), np.nan), np.full(len(table), np.nan)
    asked = np.zeros(len(table), dtype=bool)
    for learned, rows in splits:
        prediction = surrogate().fit(table.select(learned)).predict(table.weights[rows], at)
        run = dataclasses.replace(
            prediction, std=np.hypot(prediction.std, np.nan_to_num(prediction.noise))
        )
        mean[rows], std[rows] = run.mean, run.std
        objective_mean[rows], objective_std[rows] = run.compose(objective)
        asked |= rows
    observed = objective.of_table(table)
    return OutOfFold(
        table.metrics, table.values, mean, std, observed, objective_mean, objective_std, {}
    ).select(np.flatnonzero(asked))


def _folds(table: TrialTable, asked: np.ndarray, folds: int | None, seed: int) -> list[np.ndarray]:
    """Masks (n,) of what to leave out; every trial that is `asked` for is in one of them."""
    _, group = np.unique(table.weights, axis=0, return_inverse=True)
    kinds = np.unique(group.ravel()[asked])
    if len(kinds) < 4:
        raise SurrogateError(
            f"{len(kinds)} different mixtures are too few to hold some out",
            hint="Run at least 4 trials on different mixtures",
        )
    if folds is None:  # by what is predicted: 26 mixtures are few, however long their curves
        folds = 5 if len(kinds) <= 128 else 3 if len(kinds) <= 256 else 2
    fold = np.random.default_rng(seed).permutation(len(kinds)) % min(folds, len(kinds))
    return [np.isin(group.ravel(), kinds[fold == k]) for k in range(int(fold.max()) + 1)]


@dataclass(frozen=True)
class Choice:
    """Which surrogate predicted held-out trials best.

    Attributes:
        name: registry name of the chosen one.
        scores: held-out score of the objective by registry name; empty if trials were too few.
        held_out: the chosen one's predictions of every trial at the fidelity asked for, in the
            table's order, each by a fit to all trials but a fold of the mixtures. None where the
            comparison was made on a part of the trials, or on none.
        learned: how many runs the compared fits learned from, at most.
    """

    name: str
    scores: dict[str, Score]
    held_out: OutOfFold | None = None
    learned: int = 0


def choose(
    table: TrialTable,
    objective: Objective,
    seed: int = 0,
    names: Sequence[str] | None = None,
    **settings: Any,
) -> Choice:
    """The surrogate among `names` that predicts held-out trials best.

    Of one fidelity by Spearman correlation of the objective: ranking is what a search needs, and
    one hopeless mixture does not decide it, as it does a mean error. Of several by the share of the
    objective's variance that is explained, for levels are predicted there too; curves are learned
    from there as a fit to `table` would. The first of them where trials are too few to hold some
    out.

    Args:
        table: the trials, of one fidelity or several.
        objective: what is compared.
        seed: of the split and of the surrogates.
        names: registry names; if None `CANDIDATES` and, of many runs, `TREES`, or `CHAINED` where
            the fidelity asked for is one of several, or none that was measured: then those that
            can predict there.
        **settings: of the surrogates (see `Surrogate`).

    Raises:
        SurrogateError: fewer than 3 trials at the fidelity, or no surrogate can predict it.
    """
    target = settings.get("fidelity")
    if names is None:
        names = CHAINED if chained(table) else _candidates(at_one_fidelity(table, target))
    several = chained(table) and all(_knows_fidelities(name) for name in names)
    trials = table if several else at_one_fidelity(table, target)
    if several and target is not None and not trials.at(target).any():
        names = _able(names, trials, partial(make, seed=seed, objective=objective, **settings))
    splits, at, whole = _splits(trials, target, seed, several)
    arguments = dict(settings) | ({"fidelity": at} if several else {})
    found: dict[str, OutOfFold] = {}
    for name in names if splits else ():
        fresh = partial(make, name, seed=seed, objective=objective, **arguments)
        try:
            found[name] = _predicted(trials, objective, splits, at, fresh)
        except SurrogateError:
            if not several:  # too few trials for any
                return Choice(names[0], {})
    if not found:
        return Choice(names[0], {})
    scores = {name: held_out.scores[OBJECTIVE] for name, held_out in found.items()}

    def worth(name: str) -> float:
        value = scores[name].r2 if several else scores[name].spearman
        return float(np.nan_to_num(value, nan=-1.0))

    best = max(scores, key=worth)
    learned = max(len(np.unique(trials.runs[rows])) for rows, _ in splits)
    return Choice(best, scores, found[best] if whole else None, learned)


def _candidates(trials: TrialTable) -> tuple[str, ...]:
    """What is compared of one fidelity: from RUNS_FOR_TREES runs on trees as well."""
    many = len(np.unique(trials.runs)) >= RUNS_FOR_TREES
    return (*CANDIDATES, TREES) if many else CANDIDATES


def _able(
    names: Sequence[str], trials: TrialTable, fresh: Callable[[str], Surrogate]
) -> Sequence[str]:
    """Those of `names` that can predict at the fidelity that `fresh` asks for.

    Raises:
        SurrogateError: none can; the error is that of the last.
    """
    able: list[str] = []
    refused: SurrogateError | None = None
    for name in names:
        try:
            fresh(name).fit(trials).predict(trials.weights[:1])
        except SurrogateError as error:
            refused = error
        else:
            able.append(name)
    if not able and refused is not None:
        raise refused
    return able


def chained(table: TrialTable) -> bool:
    """Whether the finished trials of `table` are of several fidelities."""
    return len(table.final.fidelities) > 1


def _knows_fidelities(name: str) -> bool:
    return make(name).multi_fidelity


MOST = 128  # mixtures that surrogates are compared on; the rest of a large table is predicted
ENOUGH = 8  # mixtures at the target fidelity from which on some of them are held out
FEW = 32  # mixtures up to which two fifths more fits for five folds instead of three cost nothing


def _splits(
    trials: TrialTable, target: Fidelity | None, seed: int, several: bool
) -> tuple[list[Split], Fidelity | None, bool]:
    """What is learned from and predicted, at which fidelity, and whether that is all there is.

    No splits where trials are too few. All there is: every trial at the fidelity asked for is
    predicted once, from all trials of other mixtures.
    """
    everything = np.ones(len(trials), dtype=bool)
    rng = np.random.default_rng(seed)
    if not several:
        kinds = len(np.unique(trials.weights, axis=0))
        if kinds < 4:
            return [], None, False
        if kinds > MOST + MOST // 4:
            _, group = np.unique(trials.weights, axis=0, return_inverse=True)
            learned = np.isin(group.ravel(), rng.permutation(kinds)[:MOST])
            return [(learned, ~learned)], None, False
        outs = _folds(trials, everything, 5 if kinds <= FEW else 3, seed)
        return [(~out, out) for out in outs], None, True
    at = target if target is not None and trials.at(target).any() else None
    if at is not None:
        there = trials.at(at)
        kinds = len(np.unique(trials.weights[there], axis=0))
        if kinds >= ENOUGH:
            outs = _folds(trials, there, 5 if kinds <= FEW else 3, seed)
            some = _some(trials, there, rng)
            return [(some & ~out, out & there) for out in outs], at, bool(some.all())
    # The target was hardly measured: predict the highest fidelity below it from those below
    # that, with as many of its trials as the target has; with two, where nothing else shows how far
    # one goes from the other.
    known = trials.final.fidelities
    below = [f for f in known if f != at]
    if len(below) < 2:
        return [], None, False
    rows = rng.permutation(np.flatnonzero(_ends(trials) & trials.at(below[-1])))
    there = np.zeros(len(trials), dtype=bool) if at is None else trials.at(at)
    given = max(int(there.sum()), 0 if len(below) > 2 else 2)
    if len(rows) - given < 4:
        return [], None, False
    out = np.zeros(len(trials), dtype=bool)
    out[rows[given:]] = True
    # with a run goes its whole curve
    unseen = np.isin(trials.runs, trials.runs[out | there])
    return [(_some(trials, trials.at(below[-1]), rng) & ~unseen, out)], below[-1], False


def _ends(trials: TrialTable) -> np.ndarray:
    """(n,) mask of the rows with most tokens of their run."""
    _, run = np.unique(trials.runs, return_inverse=True)
    longest = np.zeros(int(run.max(initial=0)) + 1)
    np.maximum.at(longest, run.ravel(), trials.tokens)
    return np.asarray(trials.tokens == longest[run.ravel()])


def _some(trials: TrialTable, always: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of trials on `MOST` mixtures, those of `always` (n,) first."""
    _, group = np.unique(trials.weights, axis=0, return_inverse=True)
    first = np.unique(group.ravel()[always])
    others = rng.permutation(np.setdiff1d(group.ravel(), first))
    kept = np.concatenate([first, others[: max(0, MOST - len(first))]])
    return np.isin(group.ravel(), kept)


def score(observed: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Score:
    """How well `mean` (n,) and `std` (n,) predicted `observed` (n,); NaN pairs are left out."""
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
