"""MixMin: the convex optimum with its certificate; vertices first, then that optimum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Cost, State, Trial, TrialResult, TrialSpec
from mixopt.search.proposers.mixmin import GAP, MixMin, mixmin_weights
from mixopt.surrogates import make
from mixopt.testing.proposers import FIDELITY, ProposerConformance


class TestMixMin(ProposerConformance):
    proposer = MixMin


NAMES = ("a", "b", "c")
TOKENS = 400
WORDS = 6
CHANCES = np.array(  # of each domain's words
    [
        [0.60, 0.20, 0.10, 0.04, 0.03, 0.03],
        [0.05, 0.05, 0.50, 0.30, 0.05, 0.05],
        [0.03, 0.03, 0.04, 0.10, 0.40, 0.40],
    ]
)
TARGET = np.array([0.2, 0.7, 0.1])  # the validation text is this mixture of the domains
OBJECTIVE = Objective({"web": 1.0})


def text() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.choice(WORDS, size=20 * TOKENS, p=TARGET @ CHANCES)


def said_of(trial: Trial) -> Mapping[str, np.ndarray]:
    """A proxy that has learned the words of its mixture perfectly."""
    return {"bpb/web": np.log(trial.spec.mixture.array @ CHANCES)[text()]}


def ran(number: int, spec: TrialSpec) -> Trial:
    nats = -np.log(spec.mixture.array @ CHANCES)[text()].mean()
    result = TrialResult({"bpb/web": float(nats / np.log(2) / 4)}, (), Cost())
    return Trial(number, spec, State.COMPLETE, result)


def proposer(space: MixtureSpace | None = None, **more: object) -> MixMin:
    space = space or MixtureSpace(NAMES, Mixture.uniform(NAMES))
    return MixMin(space, OBJECTIVE, FIDELITY, partial(make, "gp"), **more)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_no_other_weights_predict_better_than_the_certificate_allows(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.full(4, 0.5), (k, 60))[..., 0] + 1e-4)
    weights, gap = mixmin_weights(log_probs, steps=400)
    loss = lambda r: -np.log(r @ np.exp(log_probs)).mean()  # noqa: E731
    rival = minimize(
        loss,
        np.full(k, 1 / k),
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda r: r.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 300},
    )
    assert weights.sum() == pytest.approx(1)
    assert loss(weights) - rival.fun <= gap + 1e-9
    assert loss(weights) - rival.fun < 1e-3


def test_the_mixture_that_text_was_made_of_is_found() -> None:
    weights, gap = mixmin_weights(np.log(CHANCES)[:, text()])
    assert gap < 1e-4
    assert weights == pytest.approx(TARGET, abs=0.04)


def test_weighting_a_token_is_repeating_it() -> None:
    log_probs = np.log(CHANCES)
    counts = np.bincount(text(), minlength=WORDS)
    once, _ = mixmin_weights(log_probs, counts / counts.sum())
    often, _ = mixmin_weights(log_probs[:, text()])
    assert once == pytest.approx(often, abs=1e-6)


def test_it_stops_where_it_is_sure_to_be_near() -> None:
    weights, gap = mixmin_weights(np.log([[0.5, 0.5], [0.1, 0.1]]))
    assert gap <= GAP
    assert weights[0] > 0.9999


@pytest.mark.parametrize("broken", [np.array([[0.1, -1.0]]), np.array([[-np.inf, -1.0]])])
def test_what_is_no_log_probability_is_refused(broken: np.ndarray) -> None:
    with pytest.raises(StudyError, match="log-probabilities"):
        mixmin_weights(broken)


def test_one_proxy_per_domain_is_asked_for_first() -> None:
    specs = proposer().propose([], 3)
    assert {spec.mixture.weights for spec in specs} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_then_the_mixture_whose_ensemble_predicts_best() -> None:
    trials = [ran(i, spec) for i, spec in enumerate(proposer().propose([], 3))]
    specs = proposer(predictions=said_of).propose(trials, 3)
    assert specs[0].mixture.array == pytest.approx(TARGET, abs=0.04)
    assert all(spec.mixture.distance(specs[0].mixture) < 0.35 for spec in specs)
    pool = [
        TrialSpec(Mixture.of(dict(zip(NAMES, w, strict=True))), FIDELITY, 0)
        for w in ([1, 1, 1], [2, 7, 1], [7, 2, 1])
    ]
    assert proposer(predictions=said_of).recommend(trials, pool) == pool[1]


def test_a_bounded_domain_is_stood_for_by_the_most_there_may_be_of_it() -> None:
    space = MixtureSpace(NAMES, Mixture.uniform(NAMES), upper={"b": 0.4})
    trials = [ran(i, spec) for i, spec in enumerate(proposer(space).propose([], 3))]
    assert max(trial.spec.mixture["b"] for trial in trials) == pytest.approx(0.4)
    found = proposer(space, predictions=said_of).propose(trials, 1)[0].mixture
    assert space.contains(found, 1e-9)
    corners = np.array([trial.spec.mixture.weights for trial in trials])
    others = np.random.default_rng(0).dirichlet(np.ones(3), 200) @ corners
    losses = -np.log(others @ CHANCES[:, text()]).mean(axis=1)
    assert -np.log(found.array @ CHANCES[:, text()]).mean() < losses.min() + 1e-4


def test_a_failed_corner_is_done_without() -> None:
    trials = [ran(i, spec) for i, spec in enumerate(proposer().propose([], 3))]
    failed = next(t for t in trials if t.spec.mixture["c"] == 1)
    trials[failed.number] = Trial(failed.number, failed.spec, State.FAILED)
    found = proposer(predictions=said_of).propose(trials, 1)[0].mixture
    assert found["c"] == 0
    assert found["b"] > found["a"]


def test_kept_predictions_are_asked_for_by_name() -> None:
    trials = [ran(i, spec) for i, spec in enumerate(proposer().propose([], 3))]
    with pytest.raises(StudyError, match=r"kept no log-probabilities.*predictions="):
        proposer().propose(trials, 1)


def test_metrics_that_should_be_large_are_refused() -> None:
    trials = [ran(i, spec) for i, spec in enumerate(proposer().propose([], 3))]
    made = proposer(predictions=said_of)
    made.objective = Objective({"web": -1.0})
    with pytest.raises(StudyError, match="to be large"):
        made.propose(trials, 1)


def test_corners_without_a_trial_come_before_anything_else() -> None:
    first = [ran(0, proposer().propose([], 1)[0])]
    asked = proposer().propose(first, 4)
    assert [spec.mixture.weights for spec in asked[:2]] == [(0, 1, 0), (0, 0, 1)]
    running = [Trial(i + 1, spec, State.RUNNING) for i, spec in enumerate(asked[:2])]
    further = proposer(predictions=said_of).propose([*first, *running], 2)
    assert all(0 < max(spec.mixture.weights) < 1 for spec in further)


def test_a_trial_too_near_a_corner_to_be_told_apart_stands_for_it() -> None:
    trials = [ran(i, spec) for i, spec in enumerate(proposer().propose([], 3))]
    near = Mixture.of({"a": 0.99995, "b": 0.00005, "c": 0.0})
    trials[0] = ran(0, TrialSpec(near, FIDELITY, 0))
    found = proposer(predictions=said_of).propose(trials, 1)[0].mixture
    assert found.array == pytest.approx(TARGET, abs=0.04)


def test_of_a_pool_without_corners_what_is_nearest_to_each_is_picked_first() -> None:
    weights = ([8, 1, 1], [7, 2, 1], [4, 3, 3], [1, 8, 1], [1, 2, 7], [3, 3, 4])
    mixtures = [Mixture.of(dict(zip(NAMES, w, strict=True))) for w in weights]
    pool = [TrialSpec(mixture, FIDELITY, 0) for mixture in mixtures]
    picked = proposer().select([], pool, 3)
    assert picked == [pool[0], pool[3], pool[4]]
    # what was run is nearer to a than all that is left: b and c come next
    assert proposer().select([ran(0, pool[0])], pool, 2) == [pool[3], pool[4]]
