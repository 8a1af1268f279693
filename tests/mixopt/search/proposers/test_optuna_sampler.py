"""Optuna's samplers keep the contract, learn from past trials and leave nothing behind."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import optuna
import pytest

from mixopt.core.trials import Fidelity, State
from mixopt.search.designs import extend
from mixopt.search.optimum import minimise
from mixopt.search.proposers import make
from mixopt.search.proposers.base import Proposer
from mixopt.search.proposers.optuna_sampler import NSGA2, TPE, OptunaSampler
from mixopt.surrogates import make as make_surrogate
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    ProposerConformance,
    example_pool,
    example_space,
    example_trial,
    example_trials,
)
from mixopt.testing.surrogates import example_values

KINDS = [TPE, NSGA2]


class TestTPE(ProposerConformance):
    proposer = TPE


class TestNSGA2(ProposerConformance):
    proposer = NSGA2


class Uniform(OptunaSampler):
    """A user's own: any sampler will do."""

    name = "uniform"

    def sampler(self, seed: int, complete: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=seed)


class TestOwnSampler(ProposerConformance):
    proposer = Uniform


def proposer(name: str, seed: int = 0) -> Proposer:
    return make(
        name,
        space=example_space(),
        objective=OBJECTIVE,
        fidelity=FIDELITY,
        surrogate=partial(make_surrogate, "gp"),
        seed=seed,
    )


def truth(weights: np.ndarray) -> np.ndarray:
    return example_values(weights) @ OBJECTIVE.coefficients


def searched(name: str, seed: int) -> float:
    """Mean true objective of what six rounds of four ask for, above the optimum."""
    trials = example_trials(12)
    for _ in range(6):
        specs = proposer(name, seed).propose(trials, 4)
        trials += [example_trial(len(trials) + k, spec) for k, spec in enumerate(specs)]
    best = truth(minimise(truth, example_space(), 0).array[None])[0]
    late = np.array([t.spec.mixture.weights for t in trials[-12:]])
    return float(truth(late).mean() - best)


@pytest.mark.parametrize("name", ["optuna", "optuna-nsga2"])
@pytest.mark.slow
def test_it_asks_for_better_mixtures_than_chance(name: str) -> None:
    chance = np.mean([searched("random", seed) for seed in range(4)])
    assert np.mean([searched(name, seed) for seed in range(2)]) < 0.7 * chance


@pytest.mark.parametrize("kind", KINDS)
def test_trials_at_another_fidelity_are_not_mixed_in(kind: type[OptunaSampler]) -> None:
    trials = example_trials()
    other = Fidelity("tiny", 1_000_000, 999)
    far = [
        dataclasses.replace(t, number=100 + t.number, spec=dataclasses.replace(s, fidelity=other))
        for t in example_trials(9)
        for s in [t.spec]
    ]
    for trial in far:  # absurdly good, were they compared
        trial.result.metrics.update(dict.fromkeys(trial.result.metrics, -100.0))
    made = proposer(kind.name)
    made.rng = lambda trials: np.random.default_rng(0)  # the same randomness for both
    assert made.propose([*trials, *far], 2) == made.propose(trials, 2)


def test_a_search_from_nothing_begins() -> None:
    for kind in KINDS:
        assert len(proposer(kind.name).propose([], 3)) == 3


def test_failed_and_running_trials_are_kept_away_from() -> None:
    trials = example_trials()
    trials.append(example_trial(12, example_pool(1)[0], State.RUNNING))
    trials.append(example_trial(13, example_pool(2)[1], State.FAILED))
    for spec in proposer("optuna").propose(trials, 6):
        for trial in trials:
            assert spec.mixture.distance(trial.spec.mixture) >= 0.01


def test_what_it_recommends_is_the_best_that_was_run() -> None:
    pool = example_pool(12)
    trials = [example_trial(i, spec, noise=0.0) for i, spec in enumerate(pool[:8])]
    values = truth(np.array([spec.mixture.weights for spec in pool[:8]]))
    assert proposer("optuna").recommend(trials, pool) == pool[int(values.argmin())]


def test_optunas_own_verbosity_is_left_as_it_was() -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        proposer("optuna").propose(example_trials(), 1)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)


def test_where_every_suggestion_repeats_a_trial_a_fresh_draw_takes_its_place() -> None:
    class Stuck(Uniform):
        def sampler(self, seed: int, complete: int) -> optuna.samplers.BaseSampler:
            return optuna.samplers.PartialFixedSampler(
                {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}, optuna.samplers.RandomSampler(seed=seed)
            )

    stuck = Stuck(example_space(), OBJECTIVE, FIDELITY, partial(make_surrogate, "gp"))
    first = stuck.propose([], 3)
    assert len({spec.mixture for spec in first}) == 3
    fresh = extend(example_space(), first[0].mixture.array[None], 1, 1)
    assert first[1].mixture == fresh[0]


@pytest.mark.parametrize("name", ["optuna", "optuna-nsga2"])
def test_pruned_trials_are_told_as_pruned(name: str) -> None:
    trials = [*example_trials(), example_trial(12, example_pool(1)[0], State.PRUNED)]
    sampler = proposer(name)
    assert isinstance(sampler, OptunaSampler)
    box = {d: optuna.distributions.FloatDistribution(0.0, 1.0) for d in example_space().domains}
    found = sampler._record(trials[-1], box)
    assert found.state is optuna.trial.TrialState.PRUNED
    result = trials[-1].result
    assert result is not None
    at, value = next(iter(found.intermediate_values.items()))
    assert at == result.cost.tokens
    assert value == pytest.approx(OBJECTIVE.value(result.metrics))
    assert len(sampler.propose(trials, 2)) == 2
