"""RegMix (2407.01492): rank very many random mixtures by a regression, average the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.trials import Trial, TrialSpec
from mixopt.search.designs import STRENGTHS, TEMPERATURE, cut
from mixopt.search.proposers.base import APART, Proposer, first_apart, hellinger
from mixopt.surrogates.base import Surrogate

CANDIDATES = 100_000  # RegMix
CHAINS = 4_000  # under linear constraints, where each takes .7 ms (20 domains)
TOP = 100  # RegMix averages about so many


class RegMix(Proposer):
    """The mean of the 100 best of 100,000 Dirichlet candidates by predicted objective.

    Under linear constraints each may cost a Markov chain: there are 4,000 then.

    RegMix stops there; a batch goes on with the best-ranked candidates that differ from it, from
    each other and from every trial so far. The mean of feasible mixtures is feasible.
    """

    name: ClassVar[str] = "regmix"

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`."""
        surrogate = self.fitted(trials)
        rng = self.rng(trials)
        count = CHAINS if self.space.linear else CANDIDATES
        candidates = self.space.sample_dirichlet(
            count,
            rng,
            strength=np.geomspace(*STRENGTHS, count),
            temperature=TEMPERATURE,
        )
        score = self._score(surrogate, candidates)
        best = candidates[np.argsort(score, kind="stable")[: 50 * max(n, TOP)]]
        ranked = np.concatenate([best[:TOP].mean(axis=0, keepdims=True), best])
        taken = self.mixtures_of(trials)
        rows = first_apart(ranked, taken, n, apart=2 * APART)
        if len(rows) < n:  # a small space: whatever lies farthest from the trials
            far = hellinger(candidates, taken).min(axis=1) if len(taken) else score
            ranked = candidates[np.argsort(-far, kind="stable")]
            rows = first_apart(ranked, taken, n, apart=0.0)
        return self.specs(trials, [cut(self.space, ranked[i]) for i in rows])

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """The `n` of the pool with the best predictions: RegMix's top k (see `Proposer.select`)."""
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        if not left:
            return []
        surrogate = self.fitted(trials)
        score = self._score(surrogate, np.array([spec.mixture.weights for spec in left]))
        return [left[i] for i in np.argsort(score, kind="stable")[:n]]

    def _score(self, surrogate: Surrogate, weights: np.ndarray) -> np.ndarray:
        """(c,) predicted objective of `weights` (c, m), with what their distance costs."""
        means = surrogate.mean(weights)
        score, _ = self.objective.compose(means, np.zeros_like(means), self.objective.metrics)
        return np.asarray(score + self.space.penalty(weights))
