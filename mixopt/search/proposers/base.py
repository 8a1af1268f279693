"""What every proposer is: from the trials so far to the next ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Role, Trial, TrialSpec
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.fit_cache import FitCache

APART = 0.01  # Hellinger distance under which a proposal repeats a trial; half that of a design


class Proposer(ABC):
    """Turns the trials so far into the next ones.

    Deterministic: the same trials (whatever their order in the sequence) and the same seed give
    the same specs, so that a resumed study proposes what the uninterrupted one would have.

    A proposer of your own derives from this class, is named `package.module:Name` in the study
    file and passes `mixopt.testing.proposers.ProposerConformance`.

    Args:
        space: where mixtures may lie.
        objective: what to minimise.
        fidelity: at which the trials are to run.
        surrogate: makes a fresh, unfitted surrogate.
        seed: of the search itself.
        trial_seed: of every proposed training: with a common one, trials differ by their mixture
            and not by their initialization or data order (common random numbers).
    """

    name: ClassVar[str]
    informed: ClassVar[bool] = True
    """Whether what it asks for depends on what trials measured; not so for designs and chance."""
    survives_pruning: ClassVar[bool] = True
    """Whether it does without trials that are stopped because others have a lower objective."""
    needs_token_losses: ClassVar[bool] = False
    """Whether trials keep their loss on every token of the objective's validation domains for it.

    A study then gives its constructor `predictions`: from a complete trial to the log-probabilities
    (t,) of these tokens by metric, which are the same tokens for every trial.
    """

    def __init__(
        self,
        space: MixtureSpace,
        objective: Objective,
        fidelity: Fidelity,
        surrogate: Callable[[], Surrogate],
        seed: int = 0,
        trial_seed: int = 0,
    ) -> None:
        self.space, self.objective, self.fidelity = space, objective, fidelity
        self.surrogate, self.seed, self.trial_seed = surrogate, seed, trial_seed
        self.fits = FitCache()

    @abstractmethod
    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """The next `n` trials, each in the space.

        Args:
            trials: all so far: complete ones to learn from, waiting and running ones whose
                mixtures are already taken, pruned and failed ones not to be asked for again.
            n: how many.

        Raises:
            SurrogateError: too few complete trials to fit the surrogate to.
        """

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """The `n` specs of `pool` to run next, where only these can be run.

        For finished runs from elsewhere, and for mixtures that exist as files already. Here: those
        nearest to what `propose` asks for; a proposer that can score mixtures overrides it.

        Args:
            trials: all so far, as for `propose`.
            pool: those that may be run; what `trials` hold already is passed over.
            n: how many; all that is left of `pool` if it holds fewer.
        """
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        if not left:
            return []
        chosen: list[TrialSpec] = []
        for asked in self.propose(trials, n):
            if not left:
                break
            weights = np.array([spec.mixture.weights for spec in left])
            chosen.append(left.pop(int(hellinger(weights, asked.mixture.array[None]).argmin())))
        return chosen

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """The spec of `pool` that it would promote now, whether it was run or not.

        The least predicted mean by the study's surrogate; a proposer without a model
        recommends the best of those that were run.

        Raises:
            SurrogateError: too few complete trials to fit the surrogate to.
        """
        surrogate = self.fitted(trials)
        weights = np.array([spec.mixture.weights for spec in pool])
        mean, _ = surrogate.predict(weights, self.fidelity).compose(self.objective)
        return pool[int(np.argmin(mean + self.space.penalty(weights)))]

    def untried(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> list[TrialSpec]:
        """The specs of `pool` that no trial is of, whatever its role and round were."""
        tried = {_asked(t.spec) for t in trials}
        return [spec for spec in pool if _asked(spec) not in tried]

    def specs(self, trials: Sequence[Trial], mixtures: Sequence[Mixture]) -> list[TrialSpec]:
        """`mixtures` as specs of the round after the last of `trials`."""
        last = max((t.spec.round for t in trials), default=0)
        return [
            TrialSpec(m, self.fidelity, self.trial_seed, Role.SEARCH, round=last + 1)
            for m in mixtures
        ]

    def table(self, trials: Sequence[Trial]) -> TrialTable:
        """The complete trials with the objective's metrics, and what pruned ones would have."""
        return TrialTable.of(trials, self.objective.metrics, predicted=True)

    def fitted(self, trials: Sequence[Trial]) -> Surrogate:
        """The surrogate, fitted to them; once for as long as the same trials are asked about.

        Raises:
            SurrogateError: too few complete trials to fit it to.
        """
        return self.fits.learn(self.surrogate(), self.table(trials))

    def rng(self, trials: Sequence[Trial]) -> np.random.Generator:
        """Randomness that depends on the seed and on how many trials there are, on nothing else."""
        return np.random.default_rng([self.seed, len(trials)])

    def mixtures_of(self, trials: Sequence[Trial]) -> np.ndarray:
        """(k, m) distinct mixtures of all `trials`, whatever their state, in ledger order."""
        ordered = sorted(trials, key=lambda t: t.number)
        unique: dict[tuple[int, ...], tuple[float, ...]] = {}
        for trial in ordered:
            unique.setdefault(trial.spec.mixture.key, trial.spec.mixture.weights)
        return np.array(list(unique.values())).reshape(-1, len(self.space.domains))


def _asked(spec: TrialSpec) -> tuple[tuple[int, ...], Fidelity, int]:
    """What is trained, whatever its role and round."""
    return spec.mixture.key, spec.fidelity, spec.seed


def hellinger(weights: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, k) Hellinger distances between `weights` (n, m) and `others` (k, m)."""
    return np.asarray(np.sqrt(np.maximum(0.0, 1.0 - np.sqrt(weights) @ np.sqrt(others).T)))


def first_apart(candidates: np.ndarray, taken: np.ndarray, n: int, apart: float) -> np.ndarray:
    """(<= n,) indices of the first `candidates` (c, m) `apart` from `taken` and each other."""
    chosen: list[int] = []
    nearest = (
        hellinger(candidates, taken).min(axis=1) if len(taken) else np.full(len(candidates), 1.0)
    )
    while len(chosen) < n:
        free = np.flatnonzero(nearest >= apart)
        if not len(free):
            break
        chosen.append(int(free[0]))
        nearest = np.minimum(nearest, hellinger(candidates, candidates[free[:1]])[:, 0])
        nearest[free[0]] = -1.0
    return np.array(chosen, dtype=int)
