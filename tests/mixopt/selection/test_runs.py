"""Every candidate runs with fresh seeds until its phase rejects it."""

from __future__ import annotations

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.trials import Failure, Role, State, Trial
from mixopt.selection.runs import Selection
from tests.mixopt.selection.played import (
    CANDIDATES,
    CLEAR,
    FIDELITY,
    OBJECTIVE,
    SEEDS,
    make,
    play,
    ran,
)


def test_repeating_runs_every_candidate_with_every_seed_once() -> None:
    specs = make().next_pulls([])
    assert {(s.candidate, s.seed) for s in specs} == {(a, s) for a in CANDIDATES for s in SEEDS}
    assert len(specs) == len(CANDIDATES) * len(SEEDS)
    assert {s.role for s in specs} == {Role.SELECT}


def test_successive_rejects_drops_the_worst_and_never_natural() -> None:
    worst_natural = {**CLEAR, "natural": 2.0}
    selection = make(rule="successive-rejects", budget=16)
    trials = play(selection, worst_natural)
    pulls = {
        candidate: sum(t.spec.candidate == candidate for t in trials) for candidate in CANDIDATES
    }
    assert pulls["uniform"] < pulls["best observed"] < pulls["recommended"]
    assert pulls["natural"] == pulls["recommended"]
    assert selection.live(trials) == ["natural", "recommended"]
    assert len(trials) <= 16


def test_the_schedule_is_that_of_successive_rejects() -> None:
    # n = 40, K = 4: L = 1/2 + 1/2 + 1/3 + 1/4; ceil(36 / (L * {4, 3, 2}))
    selection = Selection(
        CANDIDATES, FIDELITY, OBJECTIVE, range(50), rule="successive-rejects", budget=40
    )
    assert selection.schedule == [6, 8, 12]


def test_a_phase_waits_for_its_runs_before_it_rejects() -> None:
    selection = make(rule="successive-rejects", budget=16)
    first = selection.next_pulls([])
    running = [Trial(k, spec, State.RUNNING) for k, spec in enumerate(first)]
    assert selection.next_pulls(running) == []
    assert not selection.done(running)
    assert selection.live(running) == list(CANDIDATES)


def test_what_is_pulled_next_follows_from_the_trials_alone() -> None:
    selection = make(rule="successive-rejects", budget=16)
    trials = play(selection, CLEAR)
    for cut in range(0, len(trials), 5):
        part = trials[:cut]
        fresh = make(rule="successive-rejects", budget=16)
        assert fresh.next_pulls(part[::-1]) == selection.next_pulls(part)


def test_no_phase_rejects_by_what_a_lost_run_left() -> None:
    selection = make(rule="successive-rejects", budget=16)
    first = selection.next_pulls([])
    lost = first[-1]
    trials = [ran(k, spec, CLEAR[spec.candidate]) for k, spec in enumerate(first[:-1])]
    trials.append(Trial(len(trials), lost, State.FAILED, failure=Failure.WORKER_LOST))
    assert selection.live(trials) == list(CANDIDATES)
    assert selection.next_pulls(trials) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": {"uniform": CANDIDATES["uniform"]}}, "natural mixture is not among"),
        ({"seeds": [1]}, "two different"),
        ({"seeds": [1, 1]}, "two different"),
        ({"confidence": 0.4}, "not in"),
    ],
)
def test_a_selection_that_cannot_decide_is_refused(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {
        "candidates": CANDIDATES,
        "fidelity": FIDELITY,
        "objective": OBJECTIVE,
        "seeds": SEEDS,
    }
    with pytest.raises(StudyError, match=message):
        Selection(**{**right, **wrong})  # type: ignore[arg-type]


def test_a_baseline_that_is_no_candidate_is_refused() -> None:
    with pytest.raises(StudyError, match="the production mixture is not among the candidates"):
        make(baseline="production")
