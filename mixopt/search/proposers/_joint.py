"""What proposers over a joint posterior share: the fitted surrogate, what is known, what is not.

Shapes: n trials or mixtures, m domains, c candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.core.mixture import Mixture, rounded
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.search.designs import cut
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates.base import JointSurrogate, Surrogate
from mixopt.surrogates.gp.gp import GaussianProcess

OBSERVED = 384  # measured mixtures that are looked at as incumbents
EXACT = 1e-9  # how far a proposal may break a constraint: rounding


class JointProposer(Proposer):
    """A proposer that asks a `JointSurrogate`.

    The study's surrogate if it has a joint posterior (what `auto` chose, if that has one), else a
    Gaussian process; the study's surrogate still makes the final recommendation.
    """

    def fitted_joint(self, table: TrialTable) -> JointSurrogate:
        """The surrogate of `table`, fitted once for as long as the same table is asked about.

        Raises:
            SurrogateError: too few trials to fit it to.
        """
        asked = self.surrogate()
        if asked.offers_joint_posterior:
            joint = self.fits.learn(asked, table).joint_posterior
            if joint is not None:
                return joint
        return self.fits.learn(GaussianProcess(self.seed, asked.fidelity, asked.noise), table)

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """See `Proposer.recommend`: the least posterior mean, of the fit that `select` used."""
        surrogate = self.fitted_joint(self.table(trials))
        weights = np.array([spec.mixture.weights for spec in pool])
        mean, _ = surrogate.predict(weights, self.target(surrogate)).compose(self.objective)
        return pool[int(np.argmin(mean + self.space.penalty(weights)))]

    def target(self, surrogate: Surrogate) -> Fidelity | None:
        """The fidelity to predict at: this proposer's, where the surrogate knows of several."""
        return self.fidelity if surrogate.multi_fidelity else None

    def moments(
        self, surrogate: JointSurrogate, weights: np.ndarray, objective: Objective
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and covariance (n, n) of `objective` at `weights` (n, m), at the target."""
        target = self.target(surrogate)
        at = None if target is None else [target] * len(weights)
        return surrogate.joint(weights, objective, at)

    def observed_and_pending(self, trials: Sequence[Trial]) -> tuple[np.ndarray, np.ndarray]:
        """Distinct mixtures (k, m) that were measured at the target, and (p, m) all other ones.

        The others are waiting, running, pruned or failed: a search does not come back to them.
        Where none was measured at the target, those that were measured elsewhere. Of very many the
        OBSERVED that measured best: the others are no incumbents, and predicting 4,096 of them
        from 4,096 trials of 20 metrics takes more than 16 GiB.
        """
        done = [t for t in trials if t.complete]
        at_target = [
            t
            for t in done
            if (t.spec.fidelity.params, t.spec.fidelity.tokens)
            == (self.fidelity.params, self.fidelity.tokens)
        ]
        observed = self.mixtures_of(at_target or done)
        open_ = self.mixtures_of([t for t in trials if not t.complete])
        seen = {rounded(row.tolist()) for row in observed}
        if len(observed) > OBSERVED:
            observed = self.mixtures_of(self._best_measured(at_target or done))
        return observed, open_[[rounded(row.tolist()) not in seen for row in open_]]

    def _best_measured(self, trials: Sequence[Trial]) -> list[Trial]:
        """The OBSERVED of `trials` with the least objective; without a metric it counts as most."""

        def measured(trial: Trial) -> tuple[float, int]:
            names = self.objective.metrics
            whole = all(np.isfinite(trial.metrics.get(name, np.nan)) for name in names)
            return self.objective.value(trial.metrics) if whole else np.inf, trial.number

        return sorted(trials, key=measured)[:OBSERVED]


def settle(space: MixtureSpace, weights: np.ndarray) -> Mixture:
    """The mixture `weights` (m,) without its tiny weights where that breaks no constraint."""
    mixture = cut(space, weights)
    if space.contains(mixture, EXACT):
        return mixture
    return Mixture.from_array(space.domains, space.project(weights))
