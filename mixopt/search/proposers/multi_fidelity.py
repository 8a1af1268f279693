"""Bayesian optimization that also chooses how much to spend on each trial.

Shapes: c measurements to choose from, m domains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.errors import MixtureError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Role, Trial, TrialSpec
from mixopt.search.proposers._candidates import DRAWN, candidates, spread
from mixopt.search.proposers._improvement import greedy_improvement
from mixopt.search.proposers._joint import EXACT, JointProposer, settle
from mixopt.search.proposers._measurements import Measurements
from mixopt.search.proposers.base import APART, first_apart
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import JointSurrogate, Surrogate

MIXTURES = 128  # looked at closely: the most promising at the target; more for large batches
HOPE = 2.0  # deviations by which promise is counted


class MultiFidelity(JointProposer):
    """What a trial teaches about the best mixture at the target, per what it costs.

    The knowledge gradient (Frazier et al. 2009; cost-aware: 1903.04703): how far a trial is
    expected to lower the least posterior mean at the target, over the candidates, exactly. A trial
    at the target is also worth what it may improve on those trained there, whichever is more: a
    mean may already be sure of a mixture that nobody has trained.

    Batches are chosen one by one; what is waiting, running or chosen narrows the posterior for the
    next as its measurement will. Needs a surrogate that learns from several fidelities; if the
    study's does not, models with `cokriging`.

    Args:
        space: where mixtures may lie.
        objective: what to minimise.
        fidelity: the target.
        surrogate: makes a fresh, unfitted surrogate.
        seed: of the search itself.
        trial_seed: of every proposed training.
        fidelities: to choose from; those of the trials so far and the target if not given.
        cost: of a trial at a fidelity, in any unit. If not given, the mean of what trials there
            took (device-seconds), where all were timed; else parameters x tokens.
    """

    name: ClassVar[str] = "multi-fidelity"

    def __init__(
        self,
        space: MixtureSpace,
        objective: Objective,
        fidelity: Fidelity,
        surrogate: Callable[[], Surrogate],
        seed: int = 0,
        trial_seed: int = 0,
        fidelities: Sequence[Fidelity] | None = None,
        cost: Callable[[Fidelity], float] | None = None,
    ) -> None:
        super().__init__(space, objective, fidelity, surrogate, seed, trial_seed)
        self.fidelities, self.cost = fidelities, cost

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`; each spec at the fidelity that is most worth its cost."""
        surrogate = self.fitted_joint(self.table(trials))
        observed, _ = self.observed_and_pending(trials)
        with reproducible(self.seed):
            found = self._found(surrogate, trials, observed)
            pool = self._pool(trials, found)
            chosen = self._chosen(surrogate, trials, pool, n, None)
        if len(chosen) < n:
            raise MixtureError(
                f"found only {len(chosen)} of {n} new mixtures",
                where="space",
                hint="Widen the bounds or end the search",
            )
        return chosen

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """See `Proposer.select`; at any fidelity of the pool, or of `fidelities` where given."""
        left = self.untried(trials, pool)
        if self.fidelities is not None:
            asked = {*self.fidelities, self.fidelity}
            left = [spec for spec in left if spec.fidelity in asked]
        if len(left) <= n:
            return left
        surrogate = self.fitted_joint(self.table(trials))
        with reproducible(self.seed):
            return self._chosen(surrogate, trials, left, n, self._least(trials))

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """See `Proposer.recommend`: the least mean at the target, or next to it until it ran.

        What was measured there counts as it was measured, unless the surrogate was given how much
        runs scatter: without repeats, what a model does not explain of a mixture and what another
        seed would have changed look alike, and of runs with common random numbers most is the
        former. Taking it for scatter, the recommended mixture of a RegMix pool was .0072 above the
        best of it after eight runs at the target, when the best that was trained was .0021 above.
        """
        surrogate = self.fitted_joint(self.table(trials))
        spoken = self._predicted_fidelity(trials)
        weights = np.array([spec.mixture.weights for spec in pool])
        mean, _ = surrogate.predict(weights, spoken).compose(self.objective)
        if not surrogate.noise:
            got = self._got(trials, spoken)
            mean = np.array([got.get(s.mixture, m) for s, m in zip(pool, mean, strict=True)])
        return pool[int(np.argmin(mean))]

    def _got(self, trials: Sequence[Trial], fidelity: Fidelity) -> dict[Mixture, float]:
        """The objective of each mixture measured at `fidelity`, the mean of its repeats."""
        names = self.objective.metrics
        runs: dict[Mixture, list[float]] = {}
        for trial in sorted(trials, key=lambda t: t.number):
            here = trial.complete and trial.spec.fidelity == fidelity
            if here and all(np.isfinite(trial.metrics.get(name, np.nan)) for name in names):
                value = self.objective.value(trial.metrics)
                runs.setdefault(trial.spec.mixture, []).append(value)
        return {mixture: float(np.mean(values)) for mixture, values in runs.items()}

    def _least(self, trials: Sequence[Trial]) -> float | None:
        """The least objective measured at the target, where no noise of runs is known of."""
        got = self._got(trials, self.fidelity)
        return None if self.surrogate().noise or not got else min(got.values())

    def _found(
        self, surrogate: JointSurrogate, trials: Sequence[Trial], observed: np.ndarray
    ) -> np.ndarray:
        """Mixtures (c, m) to look at; without gradients until the target was ever run."""
        rng = self.rng(trials)
        if self._predicted_fidelity(trials) != self.fidelity:
            return spread(self.space, observed, DRAWN, rng)
        return candidates(
            surrogate, self.objective, self.space, observed, len(trials), rng, self.fidelity
        )

    def fitted_joint(self, table: TrialTable) -> JointSurrogate:
        """See `JointProposer.fitted_joint`; `cokriging` if the study's knows one fidelity only."""
        asked = self.surrogate()
        if asked.offers_joint_posterior and asked.multi_fidelity:
            joint = self.fits.learn(asked, table).joint_posterior
            if joint is not None and joint.multi_fidelity:
                return joint
        from mixopt.surrogates.fidelity.cokriging import Cokriging  # imports torch: seconds

        return self.fits.learn(Cokriging(self.seed, self.fidelity, asked.noise), table)

    def _chosen(
        self,
        surrogate: JointSurrogate,
        trials: Sequence[Trial],
        pool: Sequence[TrialSpec],
        n: int,
        best: float | None,
    ) -> list[TrialSpec]:
        """The `n` specs of `pool` that are most worth their cost, one after the other.

        A fidelity that nothing was measured at has no joint posterior with the others. The target
        comes first then: nothing else says how well low fidelities predict it.
        """
        measured = {t.spec.fidelity for t in trials if t.complete}
        if self._predicted_fidelity(trials) != self.fidelity:
            return self._first(surrogate, trials, pool, n)
        pool = [spec for spec in pool if spec.fidelity in measured]
        mixtures = self._promising(surrogate, trials, pool, MIXTURES + 4 * n)
        left = [spec for spec in pool if spec.mixture in mixtures]
        seen = Measurements.of(
            surrogate, self.objective, self.fidelity, trials, list(mixtures), left, best
        )
        costs = np.log(self._costs(trials, [spec.fidelity for spec in left]))
        chosen: list[int] = []
        while len(chosen) < min(n, len(left)):
            worth = self._worth(seen) - costs
            worth[chosen] = -np.inf
            free = np.setdiff1d(np.arange(len(left)), chosen)
            chosen.append(int(free[np.argmax(worth[free])]))
            seen.expect(chosen[-1])
        return [left[i] for i in chosen]

    def _predicted_fidelity(self, trials: Sequence[Trial]) -> Fidelity:
        """The fidelity to predict: the target, or until it was measured the highest that was."""
        done = {t.spec.fidelity for t in trials if t.complete}
        if not done or self.fidelity in done:
            return self.fidelity
        return max(done, key=lambda f: (f.params * f.tokens, f.params))

    def _first(
        self,
        surrogate: JointSurrogate,
        trials: Sequence[Trial],
        pool: Sequence[TrialSpec],
        n: int,
    ) -> list[TrialSpec]:
        """The first specs at the target: by the highest fidelity that was measured.

        The best mean, then what may yet be better.
        """
        there = [s for s in pool if s.fidelity == self.fidelity] or list(pool)
        weights = np.array([spec.mixture.weights for spec in there])
        highest = self._predicted_fidelity(trials)
        mean, std = surrogate.predict(weights, highest).compose(self.objective)
        kept = np.sort(np.argsort(mean - HOPE * std, kind="stable")[: MIXTURES + 4 * n])
        moments = surrogate.joint(weights[kept], self.objective, [highest] * len(kept))
        chosen = greedy_improvement(*moments, [], range(len(kept)), n, self.seed)
        return [there[kept[i]] for i in chosen]

    def _promising(
        self,
        surrogate: JointSurrogate,
        trials: Sequence[Trial],
        pool: Sequence[TrialSpec],
        most: int,
    ) -> dict[Mixture, None]:
        """Mixtures that may be the best at the target: of the pool, and of what was tried there."""
        ordered = sorted(trials, key=lambda t: t.number)
        here = [t.spec for t in ordered if t.spec.fidelity == self.fidelity]
        every = list(dict.fromkeys(spec.mixture for spec in (*pool, *here)))
        weights = np.array([mixture.weights for mixture in every])
        mean, std = surrogate.predict(weights, self.fidelity).compose(self.objective)
        able = {spec.mixture for spec in pool}
        hope = np.argsort(mean - HOPE * std, kind="stable")
        # `most` that can still be run, and whatever was tried before them
        count = np.cumsum([every[i] in able for i in hope])
        return dict.fromkeys(every[i] for i in hope[: int(np.searchsorted(count, most)) + 1])

    def _worth(self, seen: Measurements) -> np.ndarray:
        """(c,) logarithm of what each measurement is worth."""
        return np.asarray(np.maximum(seen.knowledge(), seen.improvement(self.seed)))

    def _pool(self, trials: Sequence[Trial], found: np.ndarray) -> list[TrialSpec]:
        """`found` (c, m) at each fidelity, and what was trained at one at the others too."""
        asked = self.fidelities
        if asked is None:
            asked = [t.spec.fidelity for t in sorted(trials, key=lambda t: t.number)]
        # each once, of equal ones the last, so that the target keeps its model's name
        each = {fidelity: fidelity for fidelity in (*asked, self.fidelity)}
        tried = self.mixtures_of(trials)
        rows = first_apart(found, tried, MIXTURES, APART)
        if not len(rows):  # a small space: accept mixtures that are closer to what was tried
            rows = first_apart(found, tried, MIXTURES, APART / 100)
        mixtures = [settle(self.space, found[row]) for row in rows]
        inside = tried[self.space.polytope.excess(tried) <= EXACT]
        mixtures += [Mixture(self.space.domains, tuple(weights)) for weights in inside.tolist()]
        last = max((t.spec.round for t in trials), default=0)
        done = {(t.spec.mixture, t.spec.fidelity) for t in trials}
        return [
            TrialSpec(mixture, fidelity, self.trial_seed, Role.SEARCH, last + 1)
            for fidelity in each.values()
            for mixture in mixtures
            if (mixture, fidelity) not in done
        ]

    def _costs(self, trials: Sequence[Trial], fidelities: Sequence[Fidelity]) -> np.ndarray:
        """(c,) what a trial at each of `fidelities` costs."""
        if self.cost is not None:
            return np.array([self.cost(fidelity) for fidelity in fidelities])
        nominal = [float(fidelity.params) * fidelity.tokens for fidelity in fidelities]
        took: dict[Fidelity, list[float]] = {}
        for trial in trials:
            if trial.result is not None and trial.complete:  # a pruned one cost less than asked for
                took.setdefault(trial.spec.fidelity, []).append(trial.result.cost.device_seconds)
        if not took or min(min(seconds) for seconds in took.values()) <= 0:
            return np.array(nominal)
        mean = {fidelity: float(np.mean(seconds)) for fidelity, seconds in took.items()}
        largest = max(mean, key=lambda each: each.params * each.tokens)
        rate = mean[largest] / (float(largest.params) * largest.tokens)
        return np.array(
            [mean.get(f, rate * size) for f, size in zip(fidelities, nominal, strict=True)]
        )


class MaxValueEntropy(MultiFidelity):
    """What a trial teaches about the least value at the target, in nats, per what it costs.

    Max-value entropy search over fidelities (1901.08275), as in ADMIRE-BayesOpt (2508.11551); see
    `MultiFidelity` for the settings.
    """

    name: ClassVar[str] = "multi-fidelity-mes"

    def _worth(self, seen: Measurements) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(seen.information(self.seed)))
