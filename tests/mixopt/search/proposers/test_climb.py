"""CLIMB: a design first, then rounds that narrow; the pool's rivals pick as they say they do."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from mixopt.core.errors import SurrogateError
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import State, Trial, TrialSpec
from mixopt.search.designs import extend
from mixopt.search.proposers.base import Proposer
from mixopt.search.proposers.climb import Climb
from mixopt.search.proposers.random import Random
from mixopt.search.proposers.regmix import RegMix
from mixopt.surrogates import make
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


class TestClimb(ProposerConformance):
    proposer = Climb


def proposer(kind: type[Proposer], space: MixtureSpace | None = None, seed: int = 0) -> Proposer:
    return kind(space or example_space(), OBJECTIVE, FIDELITY, partial(make, "gp"), seed)


def truth(specs: list[TrialSpec]) -> np.ndarray:
    weights = np.array([spec.mixture.weights for spec in specs])
    return example_values(weights) @ OBJECTIVE.coefficients


def in_round(trials: list[Trial], number: int) -> list[Trial]:
    return [dataclasses.replace(t, spec=dataclasses.replace(t.spec, round=number)) for t in trials]


def test_it_begins_with_a_dirichlet_design() -> None:
    specs = proposer(Climb).propose([], 5)
    assert [s.mixture for s in specs] == extend(example_space(), np.empty((0, 4)), 5, 0)


def test_each_round_samples_from_fewer_and_better_ones() -> None:
    trials, pool = example_trials(20), example_pool(128)
    means = [
        np.mean(
            [
                truth(proposer(Climb, seed=s).select(in_round(trials, k), pool, 4)).mean()
                for s in range(2)
            ]
        )
        for k in (0, 1, 2)
    ]
    assert means[0] > means[1] > means[2]
    assert means[0] < truth(pool).mean()


def test_two_seeds_sample_differently_from_the_same_best() -> None:
    trials, pool = example_trials(20), example_pool(64)
    first, second = (set(proposer(Climb, seed=s).select(trials, pool, 4)) for s in (0, 1))
    assert first != second
    best = set(proposer(RegMix).select(trials, pool, 32))
    assert first | second <= best


def test_regmix_picks_the_best_predicted_in_order() -> None:
    trials, pool = example_trials(24), example_pool(40)
    picked = proposer(RegMix).select(trials, pool, 5)
    assert truth(picked).max() < np.quantile(truth(pool), 0.3)
    assert picked == proposer(RegMix).select(trials, pool, 40)[:5]
    assert proposer(RegMix).recommend(trials, pool) == picked[0]


def test_a_penalty_turns_regmix_to_natural() -> None:
    space = dataclasses.replace(example_space(), kl_penalty=100.0)
    trials, pool = example_trials(24), example_pool(40)
    picked = proposer(RegMix, space).select(trials, pool, 5)
    distances = sorted(space.kl(np.array([spec.mixture.weights]))[0] for spec in pool)
    assert [space.kl(np.array([s.mixture.weights]))[0] for s in picked] == pytest.approx(
        distances[:5]
    )
    assert proposer(RegMix, space).recommend(trials, pool) == picked[0]


def test_chance_recommends_the_best_it_ran_not_a_prediction() -> None:
    pool = example_pool(20)
    trials = [example_trial(i, spec, noise=0.0) for i, spec in enumerate(pool[:10])]
    result = proposer(Random).recommend(trials, pool)
    assert result == pool[int(truth(pool[:10]).argmin())]
    elsewhere = pool[10:]
    nearest = min(elsewhere, key=lambda spec: spec.mixture.distance(result.mixture))
    assert proposer(Random).recommend(trials, elsewhere) == nearest


def test_chance_without_a_complete_trial_has_nothing_to_recommend() -> None:
    pool = example_pool(3)
    with pytest.raises(SurrogateError, match="no trial is complete"):
        proposer(Random).recommend([Trial(0, pool[0], State.RUNNING)], pool)


def test_chance_picks_every_one_of_a_pool_in_the_long_run() -> None:
    trials, pool = example_trials(3), example_pool(8)
    counts = np.zeros(8)
    for seed in range(400):
        for spec in proposer(Random, seed=seed).select(trials, pool, 2):
            counts[pool.index(spec)] += 1
    assert counts.min() > 60  # 100 expected, standard deviation 8.7
    assert counts.max() < 140
