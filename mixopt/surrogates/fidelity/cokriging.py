"""A chain of fidelities, each a line in the one below it and what that leaves.

Shapes: n trials, b mixtures, m domains, q metrics of which p vary; l links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from botorch.models.model import Model

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import FEWEST_TRIALS, OncePerRun, Prediction, checked, compose_joint
from mixopt.surrogates.fidelity._chain_model import ChainModel
from mixopt.surrogates.fidelity._link import Link, fit_link
from mixopt.surrogates.gp.effective_data import EffectiveData
from mixopt.surrogates.gp.gaussian import Gaussian
from mixopt.surrogates.per_metric import correlation_of_few

FEWEST_MIXTURES = 8  # different mixtures that the chain's first fidelity must have
DRIFT = 0.3  # deviation of a slope, per unit of log cost, beyond the last measured fidelity
LEVEL_DRIFT = 0.3  # deviation of a level's step there, relative to the step


@dataclass(frozen=True)
class _Reach:
    """Beyond the last link: y' = level + slope (y - centre), by metric, with their deviations."""

    centre: np.ndarray
    level: np.ndarray
    level_std: np.ndarray
    slope: np.ndarray
    slope_std: np.ndarray


class Cokriging(OncePerRun):
    """Autoregressive co-kriging over fidelities (Kennedy and O'Hagan 2000) on the law.

    The lowest fidelity with enough mixtures is fitted by `effective-data`; every higher one is
    a + b f + δ of the one before it (see `_link`). Many low-fidelity runs say which mixtures are
    good, and a few high-fidelity ones how much of that remains at their size: metrics shrink
    differently, so that a mean of small models' losses is weighted wrongly for large ones.

    A fidelity between two measured ones is interpolated, one beyond them extrapolated, both in the
    logarithm of cost (parameters x tokens): slopes go on by the same factor, levels by what
    Chinchilla's law leaves to lose, and deviations grow. Of a curve only one point is used: that at
    the target's tokens, or the last before them.

    Attributes:
        fidelities: of the chain, lowest first.
    """

    name: ClassVar[str] = "cokriging"
    multi_fidelity: ClassVar[bool] = True
    base: ClassVar[type[Gaussian]] = EffectiveData

    def _clear(self) -> None:
        super()._clear()
        self._base: Gaussian | None = None
        self._metrics: tuple[str, ...] = ()
        self._columns: list[int] = []
        self._links: list[Link] = []
        self._levels = np.empty((0, 0))
        self._correlations = np.empty((0, 0, 0))  # of every fidelity's errors
        self.fidelities: list[Fidelity] = []

    def _wanted(self, table: TrialTable) -> Fidelity | None:
        """The highest one, if none was asked for."""
        return self.fidelity or next(reversed(table.final.fidelities), None)

    def _learn(self, once: TrialTable, target: Fidelity | None) -> None:
        """A link costs a tenth of a second, the first fidelity its own fit."""
        self.fidelities = _chain(once)
        first = once.select(once.at(self.fidelities[0]))
        base = self.base(self.seed, self.fidelities[0], self.noise, self.objective).fit(first)
        self._base, self._metrics = base, once.metrics
        self._columns = [once.metrics.index(metric) for metric in base.modelled]
        self._links = []
        correlations = [base.error_correlation]
        values = first.values[:, self._columns]
        levels = [np.nanmean(values, axis=0)]
        scale = np.nanstd(values, axis=0)
        expected = np.ones(len(self._columns))
        for before, fidelity in zip(self.fidelities, self.fidelities[1:], strict=False):
            rows = once.select(once.at(fidelity))
            depth = len(self._links)
            mean, variance = self._at_depth(rows.weights, depth)
            with reproducible(self.seed):
                link = fit_link(
                    rows.weights,
                    rows.values[:, self._columns],
                    mean,
                    variance,
                    scale,
                    expected,
                    self._known_noise(),
                )
            self._links.append(link)
            correlations.append(self._link_correlation(link, correlations[-1]))
            # a metric that was never measured up there keeps what is expected of it
            levels.append(link.level + link.mean_slope * (levels[-1] - link.centre))
            scale = scale * np.abs(link.mean_slope)
            expected = self._slopes(_log_cost(fidelity) - _log_cost(before))
        self._links = [link.calibrated() for link in self._links]
        self._levels, self._correlations = np.array(levels), np.array(correlations)

    def _knows(self, fidelity: Fidelity) -> bool:
        return fidelity in self.fidelities

    def _predict(self, mixtures: np.ndarray, fidelity: Fidelity | None) -> Prediction:
        """At any fidelity from the chain's lowest upwards."""
        base = self._fitted()
        weights = checked(mixtures, base.domains)
        target = self._target(fidelity)
        mean, std, noise = base.whole(weights)
        correlation = self._correlations[0]
        if self._columns:
            below, reach, share = self._between(target)
            means, variances = self._at_depth(weights, below)
            correlation = self._correlations[below]
            if share:
                correlation = (1 - share) * correlation + share * self._correlations[below + 1]
                upper, upper_variances = self._at_depth(weights, below + 1)
                means = (1 - share) * means + share * upper
                # as if the two moved together: never below the smaller deviation
                variances = ((1 - share) * variances**0.5 + share * upper_variances**0.5) ** 2
            if reach is not None:
                means, variances = _extend(reach, means, variances)
            mean[:, self._columns], std[:, self._columns] = means, np.sqrt(variances)
            for link in self._links[:below]:
                noise[self._columns] = link.run(noise[self._columns])
            for j, metric in enumerate(self._metrics):
                noise[j] = self.noise.get(metric, noise[j])
        return Prediction(self._metrics, mean, std, noise, correlation)

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`; the fidelities must be those of the chain.

        Raises:
            SurrogateError: a fidelity is none of the chain's.
        """
        base = self._fitted()
        weights = checked(mixtures, base.domains)
        asked = [self._target(None)] * len(weights) if fidelities is None else list(fidelities)
        depths = np.array([self._depth(fidelity) for fidelity in asked])
        means, _, _ = base.whole(weights)
        covariances: dict[str, np.ndarray] = {}
        by_depth = [self._at_depth(weights, d)[0] for d in range(depths.max(initial=0) + 1)]
        for i, (j, metric) in enumerate(zip(self._columns, base.modelled, strict=True)):
            means[:, j] = np.stack(by_depth)[depths, np.arange(len(weights)), i]
            if metric not in objective.weights:
                continue
            _, covariance = base.joint(weights, Objective({metric: 1.0}, prefix=""))
            for d, link in enumerate(self._links[: depths.max(initial=0)], start=1):
                higher = np.flatnonzero(depths >= d)
                factor = np.where(depths >= d, link.mean_slope[i], 1.0)
                covariance *= np.outer(factor, factor)
                covariance[np.ix_(higher, higher)] += link.own_covariance(
                    i, weights[higher], by_depth[d - 1][higher, i]
                )
            covariances[metric] = covariance
        return compose_joint(
            objective, self._metrics, means, covariances, self._correlations, depths
        )

    @property
    def modelled(self) -> tuple[str, ...]:
        """See `JointSurrogate.modelled`."""
        return self._fitted().modelled

    @property
    def model(self) -> Model:
        """See `JointSurrogate.model`; of the chain's fidelity nearest to the predicted one."""
        target = _log_cost(self._target(None))
        costs = np.array([_log_cost(fidelity) for fidelity in self.fidelities])
        depth = int(np.abs(costs - target).argmin())
        base = self._fitted().model
        return base if depth == 0 else ChainModel(base, self._links[:depth])

    def _fitted(self) -> Gaussian:
        if self._base is None:
            raise SurrogateError(
                "predict was called before fit", hint="Fit it to a trial table first"
            )
        return self._base

    def _target(self, fidelity: Fidelity | None) -> Fidelity:
        return fidelity or self.fidelity or self.fidelities[-1]

    def _depth(self, fidelity: Fidelity) -> int:
        if fidelity in self.fidelities:
            return self.fidelities.index(fidelity)
        available = ", ".join(f"{f.params:g} x {f.tokens:g}" for f in self.fidelities)
        raise SurrogateError(
            f"no trial ran at {fidelity.params:g} parameters and {fidelity.tokens:g} tokens",
            hint=f"Ask for one of {available}",
        )

    def _at_depth(self, weights: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances (b, p) at the chain's fidelity number `depth`."""
        mean, std, _ = self._fitted().whole(weights)
        means, variances = mean[:, self._columns], std[:, self._columns] ** 2
        for link in self._links[:depth]:
            own = link.own_variance(weights, means)
            means = link.mean(weights, means)
            variances = link.mean_slope**2 * variances + own
        return means, variances

    def _between(self, target: Fidelity) -> tuple[int, _Reach | None, float]:
        """The chain's fidelity at or below `target`, what lies beyond, and how far to the next."""
        costs = np.array([_log_cost(fidelity) for fidelity in self.fidelities])
        cost = _log_cost(target)
        if cost < costs[0] - 1e-9:
            raise self._silent(target)
        below = int(np.flatnonzero(costs <= cost + 1e-9)[-1])
        if below < len(costs) - 1:
            return below, None, float((cost - costs[below]) / (costs[below + 1] - costs[below]))
        step = float(cost - costs[-1])
        if step <= 1e-9:
            return below, None, 0.0
        if not self._links:
            raise self._silent(target)
        return below, self._reach(target, step), 0.0

    def _silent(self, target: Fidelity) -> SurrogateError:
        lowest, highest = self.fidelities[0], self.fidelities[-1]
        return SurrogateError(
            f"nothing is known of {target.params:g} parameters and {target.tokens:g} tokens: "
            f"trials range from {lowest.params:g} x {lowest.tokens:g} "
            f"to {highest.params:g} x {highest.tokens:g}",
            hint="Run a few trials there; extrapolation needs two fidelities and goes upwards",
        )

    def _slopes(self, step: float) -> np.ndarray:
        """(p,) expected slope over a further `step` of log cost: a constant factor per unit."""
        rate, weight = np.zeros(len(self._columns)), np.zeros(len(self._columns))
        for link, before, after in zip(
            self._links, self.fidelities, self.fidelities[1:], strict=False
        ):
            length = _log_cost(after) - _log_cost(before)
            slope = np.maximum(link.mean_slope, 0.05)
            precision = (length * slope / np.maximum(link.slope_std, 1e-3)) ** 2
            rate += precision * np.log(slope) / length
            weight += precision
        return np.asarray(np.exp(np.clip(rate / np.maximum(weight, 1e-12) * step, -3.0, 1.0)))

    def _reach(self, target: Fidelity, step: float) -> _Reach:
        """From the last fidelity of the chain to `target`, `step` of log cost beyond it."""
        slope = self._slopes(step)
        last, before = self._levels[-1], self._levels[-2]
        done = _left(self.fidelities[-2]) - _left(self.fidelities[-1])
        level = last + (last - before) * (_left(self.fidelities[-1]) - _left(target)) / done
        return _Reach(
            centre=last,
            level=level,
            level_std=LEVEL_DRIFT * np.abs(level - last),
            slope=slope,
            slope_std=slope * DRIFT * step / (1 + step),
        )

    def _link_correlation(self, link: Link, below: np.ndarray) -> np.ndarray:
        """(q, q) of the errors one link up: of its few trials, shrunk to that `below`."""
        tied = below.copy()
        inner = np.ix_(self._columns, self._columns)
        tied[inner] = correlation_of_few(link.errors, below[inner])
        return tied

    def _known_noise(self) -> np.ndarray:
        known = [self.noise.get(self._metrics[j], np.nan) for j in self._columns]
        return np.array(known, dtype=float) ** 2


def _extend(
    reach: _Reach, means: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    away = means - reach.centre
    spread = reach.level_std**2 + (reach.slope_std * away) ** 2
    return reach.level + reach.slope * away, reach.slope**2 * variances + spread


def _left(fidelity: Fidelity) -> float:
    """What a model of this size and training has yet to lose, by Chinchilla's law (2203.15556).

    Its units are those of another corpus: only ratios of differences are used.
    """
    params, tokens = max(fidelity.params, 1), max(fidelity.tokens, 1)
    return float(406.4 * params**-0.34 + 410.7 * tokens**-0.28)


def _log_cost(fidelity: Fidelity) -> float:
    return float(np.log(max(fidelity.params, 1)) + np.log(max(fidelity.tokens, 1)))


def _chain(table: TrialTable) -> list[Fidelity]:
    """The fidelities to chain, cheapest first.

    Those below the lowest one with `FEWEST_MIXTURES` mixtures are left out: too few to fit. Where
    none has so many, the one with most comes first.

    Raises:
        SurrogateError: no fidelity has 3 trials.
    """
    known = table.fidelities
    kinds = [len(np.unique(table.weights[table.at(f)], axis=0)) for f in known]
    enough = [i for i, count in enumerate(kinds) if count >= FEWEST_MIXTURES]
    first = enough[0] if enough else int(np.argmax(kinds)) if kinds else 0
    if not known or table.at(known[first]).sum() < FEWEST_TRIALS:
        raise SurrogateError(
            f"no fidelity has {FEWEST_TRIALS} trials",
            hint="Run more trials at the lowest fidelity",
        )
    return known[first:]
