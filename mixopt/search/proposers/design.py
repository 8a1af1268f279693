"""Designs as proposers: go on with a design, whatever the trials have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.trials import Trial, TrialSpec
from mixopt.search.designs import extend, features
from mixopt.search.exchange import d_optimal
from mixopt.search.proposers.base import APART, Proposer, first_apart


class Design(Proposer):
    """The next mixtures of one of `mixopt.search.designs`; needs no complete trial.

    What is recommended is the surrogate's optimum, so that a design is the honest rival of every
    proposer that looks at results.
    """

    informed: ClassVar[bool] = False

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`.

        Raises:
            MixtureError: the space holds no further mixtures that are apart from the trials.
        """
        return self.specs(
            trials, extend(self.space, self.mixtures_of(trials), n, self.seed, self.name)
        )


class Dirichlet(Design):
    """Around the baseline, sparse to dense (RegMix, 2407.01492)."""

    name: ClassVar[str] = "dirichlet"


class Sobol(Design):
    """Evenly over the simplex."""

    name: ClassVar[str] = "sobol"


class Vertices(Design):
    """Most of each domain in turn, then centroids."""

    name: ClassVar[str] = "vertices"


class DOptimal(Design):
    """The mixtures that add most information on the domains' effects to the trials."""

    name: ClassVar[str] = "d-optimal"

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """The D-optimal choice among the mixtures of `pool` (see `Proposer.select`)."""
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        if not left:
            return []
        weights = np.array([spec.mixture.weights for spec in left])
        taken = self.mixtures_of(trials)
        # repeats of one mixture, and of a trial's, only where nothing else is left
        fresh = first_apart(weights, taken, len(left), APART / 10)
        total = len(taken) + n
        chosen = d_optimal(features(weights[fresh], total), n, fixed=features(taken, total))
        rows: list[int] = fresh[chosen].tolist()
        rows += [i for i in range(len(left)) if i not in rows][: max(0, n - len(rows))]
        return [left[i] for i in rows]
