"""Every proposer keeps the contract; Bayesian optimization earns its time."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, State, Trial, TrialResult, TrialSpec
from mixopt.search.optimum import minimise, recommend
from mixopt.search.proposers import make
from mixopt.search.proposers.bayes import Bayes
from mixopt.search.proposers.random import Random
from mixopt.search.proposers.regmix import RegMix
from mixopt.surrogates import make as make_surrogate
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    ProposerConformance,
    example_space,
    example_trial,
    example_trials,
)
from mixopt.testing.surrogates import example_values


class TestRandom(ProposerConformance):
    proposer = Random


class TestRegMix(ProposerConformance):
    proposer = RegMix


class TestBayes(ProposerConformance):
    proposer = Bayes


def truth(weights: np.ndarray) -> np.ndarray:
    """The noise-free objective (n,) at `weights` (n, 4)."""
    return example_values(weights) @ OBJECTIVE.coefficients


def searched(name: str, seed: int, rounds: int = 2, batch: int = 4) -> float:
    """The best true objective among the trials of a short search, above the optimum."""
    space = example_space()
    trials = example_trials(8)
    proposer = make(
        name,
        space=space,
        objective=OBJECTIVE,
        fidelity=FIDELITY,
        surrogate=partial(make_surrogate, "gp"),
        seed=seed,
    )
    for _ in range(rounds):
        specs = proposer.propose(trials, batch)
        trials += [example_trial(len(trials) + k, spec) for k, spec in enumerate(specs)]
    best = truth(minimise(truth, space, 0).array[None])[0]
    return float(min(truth(t.spec.mixture.array[None])[0] for t in trials) - best)


def test_bayesian_optimization_comes_nearer_to_the_optimum_than_chance() -> None:
    bayes = searched("bayes", 0)
    chance = [searched("random", seed) for seed in range(8)]
    assert bayes < 0.5 * np.mean(chance)
    assert bayes < 0.01


def test_regmix_with_its_own_trees_finds_better_than_it_was_shown() -> None:
    trials = example_trials(24)
    trees = partial(make_surrogate, "lightgbm")
    specs = RegMix(example_space(), OBJECTIVE, FIDELITY, trees).propose(trials, 1)
    shown = truth(np.array([t.spec.mixture.weights for t in trials]))
    assert truth(specs[0].mixture.array[None])[0] < np.quantile(shown, 0.1)


def test_pending_trials_turn_the_search_elsewhere() -> None:
    trials = example_trials()
    bayes = partial(Bayes, example_space(), OBJECTIVE, FIDELITY, partial(make_surrogate, "gp"))
    first = bayes().propose(trials, 1)[0].mixture
    running = [*trials, example_trial(12, TrialSpec(first, FIDELITY, 11), State.RUNNING)]
    second = bayes().propose(running, 1)[0].mixture
    assert first.distance(second) > 0.01


def test_twenty_trials_of_seven_domains_and_metrics_take_seconds() -> None:
    names = tuple("abcdefg")
    space = MixtureSpace(names, Mixture.uniform(names), upper=dict.fromkeys(names, 0.6))
    rng = np.random.default_rng(0)
    helps = np.eye(7) + 0.3 * rng.random((7, 7))
    trials = []
    for i, weights in enumerate(space.sample_sobol(20, 0)):
        values = 2 - 0.3 * np.log(0.05 + helps @ weights)
        metrics = dict(zip(names, values.tolist(), strict=True))
        result = TrialResult({f"bpb/{k}": v for k, v in metrics.items()}, (), Cost())
        mixture = Mixture.from_array(names, weights)
        trials.append(Trial(i, TrialSpec(mixture, FIDELITY, 0), State.COMPLETE, result))
    objective = type(OBJECTIVE)(dict.fromkeys(names, 1.0))
    proposer = Bayes(space, objective, FIDELITY, partial(make_surrogate, "gp"))
    start = time.process_time()
    assert len(proposer.propose(trials, 4)) == 4
    assert time.process_time() - start < 10  # measured: 3.7


def test_the_recommendation_is_near_the_true_optimum_and_names_what_binds() -> None:
    space = example_space()
    table = TrialTable.of(example_trials(32), OBJECTIVE.metrics)
    result = recommend(make_surrogate("gp").fit(table), OBJECTIVE, space, seed=0)
    assert space.contains(result.mixture)
    best = truth(minimise(truth, space, 0).array[None])[0]
    assert truth(result.mixture.array[None])[0] - best < 0.01
    assert result.interval[0] < result.mean < result.interval[1]
    # d helps no metric, so that its lower bound holds whatever is found
    assert "d: at its lower bound 0.05" in result.binding
    assert result.unconstrained["d"] < 0.05
    assert result.unconstrained_mean <= result.mean + 1e-9


def test_an_unbound_recommendation_is_its_own_unconstrained_optimum() -> None:
    names = ("a", "b", "c", "d")
    space = MixtureSpace(names, Mixture.uniform(names), upper={"d": 0.9})
    table = TrialTable.of(example_trials(24, space), OBJECTIVE.metrics)
    result = recommend(make_surrogate("gp").fit(table), OBJECTIVE, space, seed=0)
    assert result.binding == []
    assert result.unconstrained == result.mixture


def test_minimise_finds_a_known_optimum_on_the_border() -> None:
    names = ("a", "b", "c")
    limit = LinearConstraint({"a": 1.0}, 0.3)
    space = MixtureSpace(names, Mixture.uniform(names), linear=[limit])
    found = minimise(lambda w: ((w - [0.6, 0.3, 0.1]) ** 2).sum(axis=1), space, seed=0)
    assert found.array == pytest.approx([0.3, 0.45, 0.25], abs=0.01)
