"""How much a metric scatters when the same training is run again: from repeats.

`measure` estimates how far a run lies from its mixture's mean. `seed_scatter` and `Forecast`
tell people what a prediction is worth for seeds that a search has not seen: its trials share one
seed, whose error moves near mixtures alike, so that no surrogate can tell it from the mixtures.

Shapes: n trials, q metrics, g groups of repeats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import digamma, polygamma, stdtrit

from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Role, Trial
from mixopt.surrogates.base import Surrogate

FEWEST = 2  # degrees of freedom under which no deviation is reported
SURE = 2.0  # standard errors that the slope must be away from 0 to be believed
SHARPEST = 3.0  # |slope| at most: e^3 = 20 times the scatter at one deviation's distance


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run around its mixture's mean.

    Attributes:
        std: by metric, in its unit; metrics that were not repeated often enough are absent.
        raw: the same before shrinking: each metric's own repeats alone.
        freedom: degrees of freedom of `raw` by metric: repeats beyond the first of each mixture.
        slope: how log deviation grows per between-mixture deviation of a metric's mean; 0 where
            the repeats do not tell that it does.
        slope_error: standard error of the slope; infinite where it was not tested.
        centre: by metric, the mean at which `std` holds.
        spread: by metric, deviation of its values over mixtures.
    """

    std: Mapping[str, float] = field(default_factory=dict)
    raw: Mapping[str, float] = field(default_factory=dict)
    freedom: Mapping[str, int] = field(default_factory=dict)
    slope: float = 0.0
    slope_error: float = math.inf
    centre: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)

    def at(self, metric: str, mean: np.ndarray | float) -> np.ndarray:
        """Deviation of a run whose mixture has this `mean` of `metric`.

        Raises:
            KeyError: nothing is known of the metric.
        """
        away = (np.asarray(mean, dtype=float) - self.centre[metric]) / self.spread[metric]
        # not beyond what was measured: a line in the logarithm explodes
        return np.asarray(self.std[metric] * np.exp(self.slope * np.clip(away, -2.0, 2.0)))


def measure(table: TrialTable) -> Noise:
    """The noise that the repeats of `table` tell of; empty where there are too few.

    Repeats are runs (the last rows of their curves) of equal mixture and fidelity and different
    seeds. Variances are pooled over mixtures, and shrunk across metrics as variances of genes are
    (Smyth 2004, limma's fitFDist), each in units of its metric's spread over mixtures: from two
    repeats of eight metrics that nearly halves the error of the deviations.

    Scatter may depend on the mixture: log variances of the groups are regressed on their means,
    one slope for all metrics, which counts where it is more than two standard errors.
    """
    final = table.final
    keys = np.column_stack([final.weights, final.params, final.tokens])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    raw: dict[str, float] = {}
    freedom: dict[str, int] = {}
    centre: dict[str, float] = {}
    spread: dict[str, float] = {}
    pieces: dict[str, list[tuple[float, int, float]]] = {}
    for j, metric in enumerate(final.metrics):
        found = _groups(final.values[:, j], group)
        degrees = sum(d for _, d, _ in found)
        width = _between(final.values[:, j], group)
        pooled = sum(d * v for v, d, _ in found) / degrees if degrees else 0.0
        if degrees < FEWEST or pooled <= 0 or width <= 0:
            continue
        raw[metric], freedom[metric] = math.sqrt(pooled), degrees
        centre[metric] = sum(d * m for _, d, m in found) / degrees
        spread[metric], pieces[metric] = width, found
    if not raw:
        return Noise()
    relative = np.array([(raw[k] / spread[k]) ** 2 for k in raw])
    shrunk = np.sqrt(squeeze(relative, np.array([freedom[k] for k in raw], dtype=float)))
    std = {k: float(s) * spread[k] for k, s in zip(raw, shrunk, strict=True)}
    slope, error = _slope(raw, centre, spread, pieces)
    believed = slope if abs(slope) > SURE * error else 0.0
    return Noise(std, raw, freedom, believed, error, centre, spread)


def known(kind: type[Surrogate], table: TrialTable) -> dict[str, float]:
    """By metric, the deviation of a run as the repeats of `table` show it.

    Empty without repeats, and for a `kind` that is better off with a noise of its own.
    """
    return dict(measure(table).std) if kind.uses_known_noise else {}


def squeeze(variances: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """(q,) posterior variances of `variances` (q,), each of `freedom` (q,) degrees of freedom.

    A scaled inverse chi-square prior is fitted to all by the moments of their logarithms, and
    weighs as many degrees of freedom as the variances agree: where they differ by no more than
    chance, all become the same.
    """
    if len(variances) < 2:
        return variances
    half = freedom / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if beyond <= 0:
        prior, weight = math.exp(float(logs.mean())), math.inf
        return np.full_like(variances, prior)
    weight = 2 * _inverse_trigamma(beyond)
    prior = math.exp(float(logs.mean()) + float(digamma(weight / 2)) - math.log(weight / 2))
    return np.asarray((weight * prior + freedom * variances) / (weight + freedom))


def _inverse_trigamma(value: float) -> float:
    """Where trigamma is `value` > 0, by Newton on 1 / trigamma, which is nearly a line."""
    x = 0.5 + 1 / value
    for _ in range(50):
        there = float(polygamma(1, x))
        step = there * (1 - there / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def _groups(values: np.ndarray, group: np.ndarray) -> list[tuple[float, int, float]]:
    """Variance, degrees of freedom and mean of every mixture with repeats."""
    found = []
    for k in np.unique(group):
        own = values[(group == k) & np.isfinite(values)]
        if len(own) > 1:
            found.append((float(own.var(ddof=1)), len(own) - 1, float(own.mean())))
    return found


def _between(values: np.ndarray, group: np.ndarray) -> float:
    """Deviation of the mixtures' means."""
    known = np.isfinite(values)
    means = [values[known & (group == k)].mean() for k in np.unique(group[known])]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def _slope(
    raw: Mapping[str, float],
    centre: Mapping[str, float],
    spread: Mapping[str, float],
    pieces: Mapping[str, list[tuple[float, int, float]]],
) -> tuple[float, float]:
    """Slope of log deviation in the standardised mean, and its standard error.

    Weighted least squares on log variances, which scatter by trigamma(d / 2) around their mean.
    Metrics of one run move together: the error is taken as if there were one metric alone.
    """
    x, y, weight, widest = [], [], [], 0
    for metric, found in pieces.items():
        used = [(v, d, m) for v, d, m in found if v > 0]
        if len(used) < 2:
            continue
        widest += 1
        d = np.array([d for _, d, _ in used], dtype=float)
        logs = np.log([v / raw[metric] ** 2 for v, _, _ in used]) - digamma(d / 2) + np.log(d / 2)
        away = np.array([(m - centre[metric]) / spread[metric] for _, _, m in used])
        w = 1 / polygamma(1, d / 2)
        x.append(away - np.average(away, weights=w))
        y.append((logs - np.average(logs, weights=w)) / 2)  # of the deviation, not the variance
        weight.append(4 * w)
    if not x:
        return 0.0, math.inf
    xs, ys, ws = (np.concatenate(part) for part in (x, y, weight))
    information = float((ws * xs**2).sum())
    if information <= 0:
        return 0.0, math.inf
    slope = float((ws * xs * ys).sum()) / information
    return float(np.clip(slope, -SHARPEST, SHARPEST)), math.sqrt(widest / information)


@dataclass(frozen=True)
class SeedScatter:
    """How far one run lies from the mean over seeds of its mixture.

    Attributes:
        std: standard deviation, pooled over mixtures, in the objective's unit.
        freedom: effective degrees of freedom of it, 1 or more: what t intervals are taken with.
        runs: how many it is from, of mixtures that were run with several seeds.
    """

    std: float
    freedom: float
    runs: int


def seed_scatter(runs: Iterable[Mapping[int, float]]) -> SeedScatter | None:
    """The scatter over seeds of `runs`, each a mixture's values by seed; None without repeats.

    Variances are pooled over mixtures. Mixtures that share seeds scatter together (two finalists
    that are nearly one tell as much as one), so the degrees of freedom are those of the sum of
    correlated squares (Satterthwaite 1946; Box 1954), correlations being read off the common
    seeds: adjusted as R² is where there are three or more, taken as 1 where there are fewer.
    """
    repeated = [own for own in runs if len(own) > 1]
    if not repeated:
        return None
    degrees = sum(len(own) - 1 for own in repeated)
    squares = sum(float(np.var(list(own.values()))) * len(own) for own in repeated)
    shared = sum(_shared_degrees(one, other) for one in repeated for other in repeated)
    return SeedScatter(
        std=math.sqrt(squares / degrees),
        freedom=float(np.clip(degrees**2 / shared, 1, degrees)),
        runs=sum(len(own) for own in repeated),
    )


def pair_scatter(runs: Iterable[Mapping[int, float]]) -> SeedScatter | None:
    """The scatter of `runs`, each a mixture's values by seed, beside what a seed does to all.

    It is what differences of two mixtures over equal seeds scatter by: the residuals of a two-way
    layout, mixture + seed, with the degrees of freedom that it leaves. None without two mixtures
    that share two seeds.
    """
    cells = [(k, seed, v) for k, own in enumerate(runs) for seed, v in own.items()]
    if not cells:
        return None
    rows, seeds, values = (np.array(part) for part in zip(*cells, strict=True))
    layout = np.hstack([rows[:, None] == np.unique(rows), seeds[:, None] == np.unique(seeds)])
    fitted, _, rank, _ = np.linalg.lstsq(layout.astype(float), values, rcond=None)
    freedom = len(values) - int(rank)
    if freedom < 1:
        return None
    squares = float(((values - layout @ fitted) ** 2).sum())
    return SeedScatter(math.sqrt(squares / freedom), float(freedom), len(values))


def pair_scatter_of(
    trials: Sequence[Trial], objective: Objective, fidelity: Fidelity
) -> SeedScatter | None:
    """The same of selection's runs so far among a study's `trials` at `fidelity`."""
    fresh = (t for t in trials if t.spec.role is Role.SELECT)
    return pair_scatter(runs_by_mixture(fresh, objective, fidelity).values())


def seed_scatter_of(
    trials: Sequence[Trial], objective: Objective, fidelity: Fidelity
) -> SeedScatter | None:
    """The scatter of `objective` over seeds in a study's `trials` at `fidelity`.

    Selection's fresh runs of a mixture and the search's own are not taken together: how far apart
    they lie is what a forecast is judged by, and the best observed run was picked for being low.
    Held-out trials tell nothing: predictions are scored by them. Nor do runs at another size.
    """
    fresh = [t for t in trials if t.spec.role is Role.SELECT]
    others = (Role.SELECT, Role.HOLDOUT, Role.TRANSFER)
    searched = [t for t in trials if t.spec.role not in others]
    groups = (runs_by_mixture(part, objective, fidelity) for part in (searched, fresh))
    return seed_scatter(runs for group in groups for runs in group.values())


def runs_by_mixture(
    trials: Iterable[Trial], objective: Objective, fidelity: Fidelity
) -> dict[tuple[int, ...], dict[int, float]]:
    """`objective` of the complete runs at `fidelity`, by seed and `rounded` weights.

    Of several runs of a mixture with one seed the first counts.
    """
    runs: dict[tuple[int, ...], dict[int, float]] = {}
    for trial in trials:
        value = objective.of_trial(trial)
        if value is not None and trial.spec.fidelity == fidelity:
            own = runs.setdefault(trial.spec.mixture.key, {})
            own.setdefault(trial.spec.seed, value)
    return runs


def _shared_degrees(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Covariance of two mixtures' sums of squares, value by seed, in units of 2 std^4.

    The degrees of freedom for a mixture with itself, 0 for two without a common seed.
    """
    both = [seed for seed in one if seed in other]
    n, a, b = len(both), len(one), len(other)
    overlap = n - n / a - n / b + n * n / (a * b)
    return overlap * _squared_correlation([one[s] for s in both], [other[s] for s in both])


def _squared_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Of values at the same seeds, less what chance makes of it; 1 where they are too few."""
    if len(x) < 3 or x == y or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 1.0
    found = float(np.corrcoef(x, y)[0, 1]) ** 2
    free = len(x) - 1
    return max(0.0, (free * found - 1) / (free - 1))


@dataclass(frozen=True)
class Forecast:
    """What runs of one mixture will give, by a surrogate of trials that share a seed.

    Attributes:
        mean: predicted objective.
        std: its standard deviation as the surrogate has it: for the seeds of its trials.
        seeds: how many of them the mixture itself was run with, 1 if it was not run: the error of
            that many seeds' mean is hidden in the prediction.
        scatter: of a run over seeds; None if it is not known. Intervals are then for the search's
            seed only.
    """

    mean: float
    std: float
    seeds: int = 1
    scatter: SeedScatter | None = None

    @property
    def this_seed(self) -> tuple[float, float]:
        """The central 90 % of what runs with the search's own seed give: for differences alone."""
        return self._around(NORMAL_90 * self.std)

    def within(self, runs: float = math.inf) -> tuple[float, float]:
        """The central 90 % of the mean over `runs` runs with fresh seeds, of all seeds if infinite.

        The half widths of the prediction (normal) and of the seeds (t) are added in quadrature:
        with few repeats this covers no less than asked for, where degrees of freedom that grow with
        the share of `std` (Welch) covered .83 of .90 with one repeat and a `std` of .3 scatters.
        """
        if self.scatter is None:
            return self.this_seed
        hidden = self.scatter.std * math.sqrt(1 / self.seeds + 1 / runs)
        student = float(stdtrit(self.scatter.freedom, 0.95))
        return self._around(math.hypot(NORMAL_90 * self.std, student * hidden))

    def _around(self, half: float) -> tuple[float, float]:
        return self.mean - half, self.mean + half
