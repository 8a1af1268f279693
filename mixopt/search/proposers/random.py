"""Fresh draws from the space, whatever came before: the control of every search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.errors import MixtureError
from mixopt.core.trials import Trial, TrialSpec
from mixopt.search.designs import STRENGTHS, TEMPERATURE, cut
from mixopt.search.proposers._observed import best_observed
from mixopt.search.proposers.base import APART, Proposer, first_apart


class Random(Proposer):
    """Dirichlet draws around the baseline, sparse to dense, apart from all trials."""

    name: ClassVar[str] = "random"
    informed: ClassVar[bool] = False

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """The next `n` trials; needs no complete one (see `Proposer.propose`).

        Raises:
            MixtureError: the space holds no further mixtures that are apart from the trials.
        """
        rng = self.rng(trials)
        strengths = np.exp(rng.uniform(np.log(STRENGTHS[0]), np.log(STRENGTHS[1]), 64 * n))
        draws = self.space.sample_dirichlet(
            len(strengths), rng, strength=strengths, temperature=TEMPERATURE
        )
        for apart in (APART, APART / 10, 1e-6):
            rows = first_apart(draws, self.mixtures_of(trials), n, apart)
            if len(rows) == n:
                return self.specs(trials, [cut(self.space, draws[i]) for i in rows])
        raise MixtureError(
            f"found only {len(rows)} of {n} new mixtures",
            where="space",
            hint="Widen the bounds or end the search",
        )

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """Any `n` of the pool, all equally likely (see `Proposer.select`)."""
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        return [left[i] for i in self.rng(trials).permutation(len(left))[:n]]

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """The best that was run: chance has no model (see `Proposer.recommend`)."""
        return best_observed(trials, pool, self.objective, self.fidelity)
