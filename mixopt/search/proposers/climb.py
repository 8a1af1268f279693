"""CLIMB (2504.13161): rounds that look ever closer at what the last surrogate holds for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.errors import MixtureError
from mixopt.core.trials import Trial, TrialSpec
from mixopt.search.designs import STRENGTHS, TEMPERATURE, cut, extend
from mixopt.search.proposers.base import APART, Proposer, first_apart
from mixopt.surrogates.base import FEWEST_TRIALS

POOL = 4096  # fresh Dirichlet candidates a round
# Top candidates a round samples from, per trial it trains. CLIMB trains 64, 32 and 16 proxies in
# three rounds; where batches stay equal, what they are drawn from halves instead.
WIDE, NARROW = 8, 2


class Climb(Proposer):
    """Dirichlet first; then a random sample of the best-predicted of a fresh pool, round by round.

    The sample is what sets it apart from RegMix's top k: it trains mixtures that the surrogate
    holds for good, and still learns from where they differ. From 8n candidates in the first round
    down to 2n; the round is that of the trials so far.
    """

    name: ClassVar[str] = "climb"

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`; a design while too few trials are complete for a surrogate.

        Raises:
            MixtureError: the space holds no further mixtures that are apart from the trials.
        """
        taken = self.mixtures_of(trials)
        if sum(trial.complete for trial in trials) < FEWEST_TRIALS:
            return self.specs(trials, extend(self.space, taken, n, self.seed))
        rng = self.rng(trials)
        strengths = rng.permutation(np.geomspace(*STRENGTHS, POOL))
        pool = self.space.sample_dirichlet(POOL, rng, strength=strengths, temperature=TEMPERATURE)
        ranked = pool[np.argsort(self._score(trials, pool), kind="stable")]
        top = self._top(trials, n)
        for apart in (APART, APART / 10, 1e-6):
            rows = first_apart(ranked, taken, top, apart)
            if len(rows) >= n:
                sample = np.sort(rng.permutation(rows)[:n])
                return self.specs(trials, [cut(self.space, ranked[i]) for i in sample])
        raise MixtureError(
            f"found only {len(rows)} of {n} new mixtures",
            where="space",
            hint="Widen the bounds or end the search",
        )

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """A sample of the best-predicted of the pool (see `Proposer.select`)."""
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        rng = self.rng(trials)
        if sum(trial.complete for trial in trials) < FEWEST_TRIALS or not left:
            return [left[i] for i in rng.permutation(len(left))[:n]]
        score = self._score(trials, np.array([spec.mixture.weights for spec in left]))
        best = np.argsort(score, kind="stable")[: self._top(trials, n)]
        sample = np.sort(rng.permutation(len(best))[:n])
        return [left[i] for i in best[sample]]

    def _top(self, trials: Sequence[Trial], n: int) -> int:
        """How many of the best are sampled from: halved every round."""
        done = max((trial.spec.round for trial in trials), default=0)
        return n * max(NARROW, WIDE >> done)

    def _score(self, trials: Sequence[Trial], weights: np.ndarray) -> np.ndarray:
        """(c,) predicted objective of `weights` (c, m), with what their distance costs."""
        means = self.fitted(trials).mean(weights)
        score, _ = self.objective.compose(means, np.zeros_like(means), self.objective.metrics)
        return np.asarray(score + self.space.penalty(weights))
