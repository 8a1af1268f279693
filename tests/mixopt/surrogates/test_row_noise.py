"""What pruned trials would have come to: learned from as far as it is sure, never as measured."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from mixopt.core.errors import SurrogateError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import State, Trial
from mixopt.search.proposers import make as make_proposer
from mixopt.surrogates import KNOWN, make, noise
from mixopt.surrogates.base import learn
from mixopt.surrogates.scoring import out_of_fold
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    example_pool,
    example_space,
    example_trial,
    example_trials,
)

HEEDING = ["gp", "effective-data"]


def pruned(expected: float, noise_std: float, number: int = 12, place: int = 0) -> Trial:
    """A trial that was stopped, with the same expectation of all metrics."""
    trial = example_trial(number, example_pool(number + 1)[place], State.PRUNED)
    assert trial.result is not None
    result = dict.fromkeys(trial.result.metrics, (expected, noise_std))
    return dataclasses.replace(trial, result=dataclasses.replace(trial.result, expected=result))


def table(*more: Trial) -> TrialTable:
    return TrialTable.of([*example_trials(), *more], OBJECTIVE.metrics, predicted=True)


def predicted(name: str, known: TrialTable, at: Trial) -> tuple[np.ndarray, np.ndarray]:
    prediction = learn(make(name, seed=0), known).predict(at.spec.mixture.array[None])
    return prediction.mean[0], prediction.std[0]


def test_a_table_holds_complete_trials_alone_unless_it_is_asked_for_more() -> None:
    trials = [*example_trials(), pruned(5.0, 0.1), example_trial(13, example_pool(1)[0])]
    plain = TrialTable.of(trials, OBJECTIVE.metrics)
    assert len(plain) == 13
    assert (plain.noise_std == 0).all()
    more = TrialTable.of(trials, OBJECTIVE.metrics, predicted=True)
    assert len(more) == 14
    assert np.flatnonzero((more.noise_std > 0).all(axis=1)).tolist() == [12]
    assert (more.values[12] == 5.0).all()
    np.testing.assert_array_equal(more.measured.values, plain.values)


@pytest.mark.parametrize("name", HEEDING)
def test_what_is_sure_counts_and_what_is_unsure_does_not(name: str) -> None:
    without, _ = predicted(name, table(), pruned(5.0, 0.1))
    sure, _ = predicted(name, table(pruned(5.0, 1e-3)), pruned(5.0, 1e-3))
    unsure, _ = predicted(name, table(pruned(5.0, 1e3)), pruned(5.0, 1e3))
    assert (np.abs(sure - 5.0) < np.abs(without - 5.0) / 2).all()
    np.testing.assert_allclose(unsure, without, atol=0.05)


@pytest.mark.parametrize("name", HEEDING)
def test_a_doubt_is_not_narrowed_below_itself(name: str) -> None:
    one = pruned(float(np.mean(table().values)), 0.5)
    _, alone = predicted(name, table(), one)
    _, std = predicted(name, table(one), one)
    assert (std > 0.3 * np.minimum(alone, 0.5)).all()


@pytest.mark.parametrize("name", sorted(set(KNOWN) - set(HEEDING) - {"mlp", "stack"}))
def test_others_do_not_see_it(name: str) -> None:
    assert not make(name).supports_row_noise
    weights = np.array([spec.mixture.weights for spec in example_pool(4)])
    known, more = table(), table(pruned(50.0, 0.1))
    one, other = (learn(make(name, seed=0), each).predict(weights) for each in (known, more))
    np.testing.assert_array_equal(one.mean, other.mean)


def test_it_is_no_measurement_for_noise_and_held_out_scores() -> None:
    same = example_trial(12, example_trials()[3].spec)
    twin = dataclasses.replace(pruned(9.0, 0.1, number=13), spec=same.spec)
    trials = [*example_trials(), same, twin]
    measured = TrialTable.of(trials, OBJECTIVE.metrics)
    assert len(measured) == 13
    predicted = TrialTable.of(trials, OBJECTIVE.metrics, predicted=True)
    assert noise.measure(predicted.measured) == noise.measure(measured)
    scored = out_of_fold(predicted.measured, OBJECTIVE, partial(make, "gp", seed=0))
    assert len(scored.objective_observed) == 13


@pytest.mark.parametrize("name", ["bayes", "climb", "regmix"])
def test_a_search_stays_away_from_where_trials_were_stopped(name: str) -> None:
    trials = example_trials()

    def asked(known: list[Trial]) -> np.ndarray:
        proposer = make_proposer(
            name,
            space=example_space(),
            objective=OBJECTIVE,
            fidelity=FIDELITY,
            surrogate=partial(make, "gp", seed=0),
            seed=0,
        )
        return np.array([spec.mixture.weights for spec in proposer.propose(known, 3)])

    wanted = asked(trials)
    centre = wanted.mean(axis=0)
    bad = []
    for k, weights in enumerate(wanted):  # all that it wanted turns out to be bad
        trial = pruned(5.0, 0.05, number=12 + k, place=k)
        mixture = type(trial.spec.mixture).from_array(example_space().domains, weights)
        bad.append(
            dataclasses.replace(trial, spec=dataclasses.replace(trial.spec, mixture=mixture))
        )
    after = asked([*trials, *bad])
    apart = np.linalg.norm(after - centre, axis=1).mean()
    assert apart > 2 * np.linalg.norm(wanted - centre, axis=1).mean()


def table_with_noise() -> TrialTable:
    rng = np.random.default_rng(0)
    weights, ones = rng.dirichlet(np.ones(3), 4), np.ones(4)
    values, noise = rng.random((4, 3)), rng.random((4, 3))
    return TrialTable(
        ("a", "b", "c"), ("x", "y", "z"), weights, values, ones, ones, np.arange(4), noise_std=noise
    )


def test_metrics_are_chosen_with_the_noise_of_their_values() -> None:
    table = table_with_noise()
    chosen = table.with_metrics(["z", "x"])
    assert chosen.metrics == ("z", "x")
    assert np.array_equal(chosen.values, table.values[:, [2, 0]])
    assert np.array_equal(chosen.noise_std, table.noise_std[:, [2, 0]])


def test_values_that_no_longer_fit_their_noise_are_refused() -> None:
    table = table_with_noise()
    with pytest.raises(SurrogateError, match="noise_std has shape"):
        dataclasses.replace(table, metrics=("x",), values=table.values[:, :1])
    with pytest.raises(SurrogateError, match="4 trials' 3 metrics"):
        dataclasses.replace(table, values=table.values[:, :2])
