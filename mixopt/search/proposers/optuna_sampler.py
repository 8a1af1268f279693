"""Any Optuna sampler as a proposer.

A study of Optuna is made in memory for every call and filled with the trials, so that what is
proposed follows from the ledger and the seed, not from what a sampler remembers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from mixopt.core.mixture import Mixture
from mixopt.core.trials import State, Trial, TrialSpec
from mixopt.search.designs import cut, extend
from mixopt.search.proposers._observed import best_observed
from mixopt.search.proposers.base import APART, Proposer, hellinger
from mixopt.surrogates._torch import reproducible

ATTEMPTS = 16  # suggestions that repeat a trial before a fresh draw takes their place


class OptunaSampler(Proposer):
    """A sampler of boxes, on the square roots of the weights.

    A point x of the box stands for the mixture x² / sum(x²), moved into the space; a mixture for
    the point √w, so that past trials enter exactly where they were. √w rather than w, because
    there equal steps are equally far apart (Hellinger). Waiting and running trials enter as
    running, which the samplers of Optuna 5 keep away from; failed ones as failed; pruned ones as
    pruned, which TPE takes for worse than all complete ones. Trials of other fidelities are left
    out. It has no model to ask, so that it recommends the best it ran.

    One of your own derives from this class, gives a sampler, and is named `package.module:Name`.
    """

    @abstractmethod
    def sampler(self, seed: int, complete: int) -> BaseSampler:
        """The sampler, seeded.

        Args:
            seed: of its randomness.
            complete: how many complete trials it will see.
        """

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`; needs no complete trial.

        Raises:
            MixtureError: the space holds no further mixtures that are apart from the trials.
        """
        box: dict[str, BaseDistribution] = {
            name: FloatDistribution(0.0, 1.0) for name in self.space.domains
        }
        known = self.mixtures_of(trials)
        chosen: list[Mixture] = []
        with _quiet(), reproducible(self.seed):
            study = self._study(trials, box)
            for _ in range(n):
                mixture = self._next(study, box, known, len(trials) + len(chosen))
                study.add_trial(
                    create_trial(
                        state=TrialState.RUNNING, params=_point(mixture), distributions=box
                    )
                )
                chosen.append(mixture)
                known = np.concatenate([known, mixture.array[None]])
        return self.specs(trials, chosen)

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """The best that was run (see `Proposer.recommend`)."""
        return best_observed(trials, pool, self.objective, self.fidelity)

    def _study(
        self, trials: Sequence[Trial], box: dict[str, BaseDistribution]
    ) -> optuna.study.Study:
        own = [t for t in trials if t.spec.fidelity == self.fidelity]
        records = [self._record(t, box) for t in sorted(own, key=lambda t: t.number)]
        complete = sum(record.state is TrialState.COMPLETE for record in records)
        seed = int(self.rng(trials).integers(2**31))
        study = optuna.create_study(sampler=self.sampler(seed, complete))
        study.add_trials(records)
        return study

    def _record(self, trial: Trial, box: dict[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
        whole = trial.complete and all(name in trial.metrics for name in self.objective.metrics)
        state = TrialState.COMPLETE if whole else TrialState.RUNNING
        if trial.ended and not whole:
            state = TrialState.FAIL
        on_the_way: dict[int, float] = {}
        if trial.state is State.PRUNED and trial.result is not None:
            state, result = TrialState.PRUNED, trial.result
            on_the_way = {result.cost.tokens: self.objective.value(result.metrics)}
        return create_trial(
            state=state,
            intermediate_values=on_the_way,
            value=self.objective.value(trial.metrics) if whole else None,
            params=_point(trial.spec.mixture),
            distributions=box,
            # no population is remembered: all trials so far are the one that parents come from
            system_attrs={"NSGAIISampler:generation": 0} if whole else None,
        )

    def _next(
        self,
        study: optuna.study.Study,
        box: dict[str, BaseDistribution],
        known: np.ndarray,
        count: int,
    ) -> Mixture:
        """The first suggestion that repeats no `known` mixture."""
        for _ in range(ATTEMPTS):
            asked = study.ask(box)
            point = np.array([asked.params[name] for name in self.space.domains])
            # what was asked for is replaced by where it leads: the box holds other points than √w
            study.tell(asked, state=TrialState.FAIL)
            total = float((point**2).sum())
            if total > 0:
                mixture = cut(self.space, self.space.project(point**2 / total))
                if not len(known) or hellinger(mixture.array[None], known).min() >= APART:
                    return mixture
        return extend(self.space, known, 1, self.seed + count)[0]


class TPE(OptunaSampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): Optuna's default."""

    name: ClassVar[str] = "optuna"

    def sampler(self, seed: int, complete: int) -> BaseSampler:
        """See `OptunaSampler.sampler`."""
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


class NSGA2(OptunaSampler):
    """Evolution by NSGA-II's operators: the better half of the trials are the parents."""

    name: ClassVar[str] = "optuna-nsga2"

    def sampler(self, seed: int, complete: int) -> BaseSampler:
        """See `OptunaSampler.sampler`."""
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, complete // 2))


def _point(mixture: Mixture) -> dict[str, float]:
    return dict(zip(mixture.domains, np.sqrt(mixture.array).tolist(), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's note for every study that is made."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
