"""What proposers over a joint posterior share: which trials count, and which surrogate is asked."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np

from mixopt.core.trials import State, Trial
from mixopt.search.proposers import _candidates, _joint
from mixopt.search.proposers.bayes import Bayes
from mixopt.surrogates import make
from mixopt.surrogates.gp.gp import GaussianProcess
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    example_pool,
    example_space,
    example_trial,
    example_trials,
)
from mixopt.testing.surrogates import example_values


def bayes(surrogate: str = "gp", seed: int = 0) -> Bayes:
    return Bayes(example_space(), OBJECTIVE, FIDELITY, partial(make, surrogate), seed)


def test_a_surrogate_without_a_joint_posterior_is_replaced_by_a_gaussian_process() -> None:
    search = bayes("lightgbm")
    assert isinstance(search.fitted_joint(search.table(example_trials())), GaussianProcess)


def test_one_table_is_fitted_once_and_another_one_anew() -> None:
    search, trials = bayes(), example_trials()
    first = search.fitted_joint(search.table(trials))
    assert search.fitted_joint(search.table([*trials[3:], *trials[:3]])) is first
    assert search.fitted_joint(search.table(trials[1:])) is not first


def test_what_runs_failed_or_waits_is_apart_from_what_was_measured() -> None:
    trials, pool = example_trials(6), example_pool(3)
    states = (State.RUNNING, State.FAILED, State.WAITING)
    open_ = [Trial(6 + k, spec, s) for k, (spec, s) in enumerate(zip(pool, states, strict=True))]
    again = Trial(9, trials[0].spec, State.RUNNING)  # a repeat of what was measured already
    observed, pending = bayes().observed_and_pending([*trials, *open_, again])
    assert {tuple(row) for row in observed} == {t.spec.mixture.weights for t in trials}
    assert {tuple(row) for row in pending} == {spec.mixture.weights for spec in pool}


def test_of_very_many_trials_the_best_measured_are_looked_at() -> None:
    trials = example_trials(40)
    proposer = bayes()
    before = _joint.OBSERVED
    try:
        _joint.OBSERVED = 10
        observed, _ = proposer.observed_and_pending(trials)
    finally:
        _joint.OBSERVED = before
    best = sorted(trials, key=lambda t: OBJECTIVE.value(t.metrics))[:10]
    assert {tuple(row) for row in observed} == {t.spec.mixture.weights for t in best}


def test_without_gradients_proposals_are_feasible_and_nearly_as_good() -> None:
    trials = example_trials(16)

    def best() -> float:
        specs = bayes().propose(trials, 3)
        assert all(example_space().contains(spec.mixture, 1e-9) for spec in specs)
        weights = np.array([spec.mixture.weights for spec in specs])
        return float((example_values(weights) @ OBJECTIVE.coefficients).min())

    with_them, before = best(), _candidates.STEEP
    try:
        _candidates.STEEP = 0.0
        without = best()
    finally:
        _candidates.STEEP = before
    shown = min(OBJECTIVE.value(t.metrics) for t in trials)
    assert without < shown
    assert without < with_them + 0.01


def test_a_pick_of_many_sees_the_running_ones() -> None:
    trials, pool = example_trials(), example_pool(30)
    first = bayes().select(trials, pool, 4)
    running = [example_trial(12 + k, spec, State.RUNNING) for k, spec in enumerate(first[:2])]
    assert bayes().select([*trials, *running], pool, 2) == first[2:]


def test_a_default_fit_and_its_proposals_do_not_wait_for_torch() -> None:
    code = """
import sys
from functools import partial
from mixopt.search.proposers.bayes import Bayes
from mixopt.surrogates import make
from mixopt.surrogates.auto import Auto
from mixopt.testing.proposers import FIDELITY, OBJECTIVE, example_space, example_trials
search = Bayes(example_space(), OBJECTIVE, FIDELITY, partial(make, "auto"), 0)
assert len(search.propose(example_trials(12), 2)) == 2
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
