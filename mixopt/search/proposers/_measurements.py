"""What may be measured next, at several fidelities, and what it would say about the target.

Shapes: j points (a mixture at a fidelity), a of them sought, c of them offered, n trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.search.proposers._improvement import (
    SAMPLES,
    Paths,
    incumbents,
    log_improvement,
    standard_normals,
)
from mixopt.search.proposers._information import (
    log_knowledge_gradient,
    max_value_information,
    sampled_minima,
)
from mixopt.surrogates.base import JointSurrogate

MINIMA = 24  # posterior samples of the least value at the target

# What a surrogate does not know of a mixture is hardly different between the promising ones of a
# pool: among the 60 best predicted RegMix mixtures, deviations and errors correlate by .15. So much
# of their mean variance is added to each, which leaves less to explore for its deviation's sake.
OWN = 3.0


@dataclass
class Measurements:
    """The joint posterior of what is sought and what is offered.

    Attributes:
        mean: (j,) of the noise-free objective at every point.
        covariance: (j, j) of it.
        narrowed: (j, j) the same, once all that is expected has been measured.
        sought: (a,) points at the target among which the best is.
        offered: (c,) points that may be measured.
        same: (c,) the point at the target with the mixture of each offered one.
        base: points at the target that are trained or will be.
        noise: (j,) variance of a measurement at every point.
        best: the least objective measured at the target, where measurements are what counts; then
            `base` holds only what will be trained there.
    """

    mean: np.ndarray
    covariance: np.ndarray
    narrowed: np.ndarray
    sought: np.ndarray
    offered: np.ndarray
    same: np.ndarray
    base: list[int]
    noise: np.ndarray
    best: float | None

    @classmethod
    def of(
        cls,
        surrogate: JointSurrogate,
        objective: Objective,
        target: Fidelity,
        trials: Sequence[Trial],
        mixtures: Sequence[Mixture],
        left: Sequence[TrialSpec],
        best: float | None = None,
    ) -> Measurements:
        """`mixtures` are sought, `left` is offered; what has not ended will be measured.

        Pruned and failed trials count as about to be measured too, so that a search does not return
        to them.
        """
        index: dict[tuple[Mixture, Fidelity], int] = {}

        def point(mixture: Mixture, fidelity: Fidelity) -> int:
            return index.setdefault((mixture, fidelity), len(index))

        ordered = [t for t in sorted(trials, key=lambda t: t.number)]
        here = [t.spec for t in ordered if t.spec.fidelity == target]
        done = {t.spec for t in ordered if t.complete}
        sought = [point(mixture, target) for mixture in mixtures]
        offered = [point(spec.mixture, spec.fidelity) for spec in left]
        same = [point(spec.mixture, target) for spec in left]
        trained = [point(spec.mixture, target) for spec in here if spec in done]
        open_ = [t.spec for t in ordered if not t.complete]
        expected = [point(spec.mixture, spec.fidelity) for spec in open_]
        pending = [point(spec.mixture, target) for spec in here if spec not in done]
        weights = np.array([mixture.weights for mixture, _ in index])
        kinds = [fidelity for _, fidelity in index]
        mean, covariance = surrogate.joint(weights, objective, kinds)
        std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        unique = list(dict.fromkeys(trained))
        known = [unique[i] for i in incumbents(mean[unique], std[unique])] if best is None else []
        found = cls(
            mean=mean,
            covariance=covariance,
            narrowed=covariance.copy(),
            sought=np.array(sought),
            offered=np.array(offered),
            same=np.array(same),
            base=[*known, *(p for p in dict.fromkeys(pending) if p not in known)],
            noise=_noise(surrogate, objective, weights[:1], kinds),
            best=best,
        )
        for each in expected:
            found._narrow(each)
        return found

    def expect(self, offer: int) -> None:
        """Count the offered one as about to be measured."""
        at = int(self.offered[offer])
        self._narrow(at)
        if at == self.same[offer] and at not in self.base:
            self.base.append(at)

    def knowledge(self) -> np.ndarray:
        """(c,) log of how far each is expected to lower the least mean at the target."""
        deviation = np.sqrt(np.diag(self.narrowed) + self.noise)[self.offered]
        towards = self.narrowed[np.ix_(self.offered, self.sought)]
        slopes = towards / np.maximum(deviation, 1e-150)[:, None]
        return log_knowledge_gradient(self.mean[self.sought], slopes)

    def information(self, seed: int) -> np.ndarray:
        """(c,) nats that each tells about the least value at the target."""
        rng = np.random.default_rng(seed)
        part = self.narrowed[np.ix_(self.sought, self.sought)]
        minima = sampled_minima(self.mean[self.sought], part, MINIMA, rng)
        variance = np.maximum(np.diag(self.narrowed), 0.0)
        measured = variance[self.offered] + self.noise[self.offered]
        joint = self.narrowed[self.offered, self.same]
        scale = np.sqrt(np.maximum(measured * variance[self.same], 1e-300))
        std = np.sqrt(variance[self.same])
        return max_value_information(self.mean[self.same], std, joint / scale, minima)

    def improvement(self, seed: int) -> np.ndarray:
        """(c,) log expected improvement on what is trained at the target; -inf at other fidelities.

        Of the noise-free objective, or of what will be measured if `best` is: then each candidate
        has a deviation of its own besides (see OWN). -inf for all where nothing is trained yet.
        """
        found = np.full(len(self.offered), -np.inf)
        there = np.flatnonzero(self.offered == self.same)
        if not len(there) or (self.best is None and not self.base):
            return found
        points = np.concatenate([self.offered[there], self.base]).astype(int)
        covariance = self.covariance[np.ix_(points, points)]
        if self.best is not None:
            alike = OWN * np.diag(covariance)[: len(there)].mean()
            covariance = covariance + np.diag(self.noise[points] + alike)
        paths = Paths.of(self.mean[points], covariance, SAMPLES)
        normals = standard_normals(SAMPLES, len(self.base), seed)
        best = np.full(SAMPLES, np.inf if self.best is None else self.best)
        for column in range(len(self.base)):
            best = np.minimum(best, paths.draw(len(there) + column, normals[:, column]))
        found[there] = log_improvement(paths, best)[: len(there)]
        return found

    def _narrow(self, point: int) -> None:
        towards = self.narrowed[point]
        variance = towards[point] + self.noise[point]
        if variance > 0:
            self.narrowed = self.narrowed - np.outer(towards, towards) / variance


def _noise(
    surrogate: JointSurrogate, objective: Objective, some: np.ndarray, kinds: Sequence[Fidelity]
) -> np.ndarray:
    """(j,) variance of one run's objective at each of `kinds`; 0 where it is not known.

    A run's metrics are taken to err together as held-out errors do.
    """
    known: dict[Fidelity, float] = {}
    for kind in kinds:
        if kind not in known:
            prediction = surrogate.predict(some, kind)
            spread = np.nan_to_num(prediction.noise)[None]
            _, std = objective.compose(
                prediction.mean, spread, prediction.metrics, prediction.correlation
            )
            known[kind] = float(std[0]) ** 2
    return np.array([known[kind] for kind in kinds])
