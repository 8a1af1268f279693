"""The proposer of several objectives keeps the contract and finds what can be had of each."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.core.trials import State, Trial
from mixopt.search.proposers.bayes import Bayes
from mixopt.search.proposers.pareto import Pareto
from mixopt.surrogates import make
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    ProposerConformance,
    example_space,
    example_trial,
    example_trials,
)
from mixopt.testing.surrogates import example_values


@pytest.mark.slow  # a minute and a half; the other conformance suites are fast
class TestPareto(ProposerConformance):
    proposer = Pareto


GP = partial(make, "gp")


def after(kind: type[Bayes], objective: Objective, n: int = 6, trials: int = 8) -> np.ndarray:
    """(n, 3) noise-free metrics of what is proposed after so many trials."""
    proposer = kind(example_space(), objective, FIDELITY, GP, seed=1)
    specs = proposer.propose(example_trials(trials), n)
    return example_values(np.array([spec.mixture.weights for spec in specs]))


def area(values: np.ndarray) -> float:
    """What `values` (n, 2) dominate of the square up to 3: larger is better."""
    total, edge = 0.0, 3.0
    for x, y in values[np.argsort(values[:, 0])]:
        total += (3.0 - x) * max(0.0, edge - y)
        edge = min(edge, y)
    return total


@pytest.mark.slow
def test_a_batch_covers_more_of_the_front_than_one_for_a_single_objective() -> None:
    # a and c compete for weight: what is good for one is bad for the other
    two = Objective({"a": 1.0, "c": 1.0})
    shown = example_values(np.array([t.spec.mixture.weights for t in example_trials(16)]))
    along, gathered = (
        area(np.concatenate([shown, after(kind, two, trials=16)])[:, [0, 2]])
        for kind in (Pareto, Bayes)
    )
    assert along > gathered > area(shown[:, [0, 2]])


def test_the_proposals_beat_the_front_of_the_trials() -> None:
    trials, two = example_trials(8), Objective({"a": 1.0, "c": 1.0})
    shown = example_values(np.array([t.spec.mixture.weights for t in trials]))[:, [0, 2]]
    found = after(Pareto, two)[:, [0, 2]]
    beaten = (shown[None] <= found[:, None]).all(axis=2).any(axis=1)
    assert beaten.mean() <= 0.5
    assert not all(beaten[:2])


def test_many_metrics_are_joined_to_three_that_move_apart() -> None:
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(40, 3))
    names = [f"{kind}{k}" for k in range(3) for kind in "xyz"]
    objective = Objective(dict.fromkeys(names, 1.0))
    trials = []
    for trial, row in zip(example_trials(40), causes, strict=True):
        values = {f"bpb/{n}": float(row["xyz".index(n[0])] + 0.1 * rng.normal()) for n in names}
        assert trial.result is not None
        result = type(trial.result)(values, (), trial.result.cost)
        trials.append(Trial(trial.number, trial.spec, trial.state, result))
    parts = Pareto(example_space(), objective, FIDELITY, GP).objectives(trials)
    assert [{m[4] for m in part.metrics} for part in parts] == [{"x"}, {"y"}, {"z"}]


def test_groups_of_the_users_own_are_weighed_as_the_objective_weighs_them() -> None:
    proposer = Pareto(example_space(), OBJECTIVE, FIDELITY, GP, groups=[["a", "bpb/b"], ["c"]])
    first, second = proposer.objectives(example_trials())
    assert dict(first.weights) == pytest.approx({"bpb/a": 1 / 3, "bpb/b": 2 / 3})
    assert dict(second.weights) == {"bpb/c": 1.0}


@pytest.mark.parametrize("groups", [[["a", "b", "c"]], [["a"], ["b"]], [["a", "b"], ["b", "c"]]])
def test_groups_that_do_not_part_the_objective_are_refused(groups: list[list[str]]) -> None:
    with pytest.raises(StudyError, match="groups"):
        Pareto(example_space(), OBJECTIVE, FIDELITY, GP, groups=groups)


def test_the_front_is_what_no_trial_beats_in_everything() -> None:
    trials = example_trials(12)
    front = Pareto(example_space(), OBJECTIVE, FIDELITY, GP).front(trials)
    values = {t.number: np.array([t.metrics[m] for m in OBJECTIVE.metrics]) for t in trials}
    kept = {t.number for t in front}
    for number, value in values.items():
        beaten = any((v <= value).all() and (v < value).any() for v in values.values())
        assert (number in kept) is not beaten


def test_one_metric_is_searched_like_any_single_objective() -> None:
    one = Objective({"a": 1.0})
    best = after(Pareto, one, 3)[:, 0].min()
    shown = example_values(np.array([t.spec.mixture.weights for t in example_trials(8)]))[:, 0]
    assert best < shown.min()


@pytest.mark.slow
def test_failed_trials_are_not_returned_to() -> None:
    trials = example_trials(8)
    proposer = partial(Pareto, example_space(), OBJECTIVE, FIDELITY, GP)
    first = proposer().propose(trials, 1)[0]
    failed = [*trials, example_trial(8, first, State.FAILED)]
    assert proposer().propose(failed, 1)[0].mixture.distance(first.mixture) > 0.01
