"""APT spends runs where it is hard to say whether a mixture beats natural, and needs fewer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.selection.candidates import NATURAL
from mixopt.selection.thresholding import Thresholding, apt_index

OBJECTIVE = Objective({"web": 1.0})
FIDELITY = Fidelity("tiny", 1_000_000, 10_000_000)
SHARES = {NATURAL: 0.5, "clear": 0.6, "close": 0.7, "worse": 0.4}
CANDIDATES = {name: Mixture.of({"web": w, "law": 1 - w}) for name, w in SHARES.items()}
TRUTH = {NATURAL: 1.0, "clear": 0.9, "close": 0.99, "worse": 1.1}
make = partial(Thresholding, CANDIDATES, FIDELITY, OBJECTIVE, range(100, 140), budget=40)


def ran(number: int, spec: TrialSpec, value: float | None) -> Trial:
    if value is None:
        return Trial(number, spec, State.FAILED)
    return Trial(number, spec, State.COMPLETE, TrialResult({"bpb/web": value}, (), Cost()))


def outcome(spec: TrialSpec, truth: Mapping[str, float], noise: float) -> float:
    """Truth + scatter shared by all candidates of a seed + own scatter."""
    shared = np.random.default_rng(spec.seed).normal()
    own = np.random.default_rng([spec.seed, len(spec.candidate)]).normal()
    return truth[spec.candidate] + 0.1 * shared + noise * own


def play(
    bandit: Thresholding, truth: Mapping[str, float] = TRUTH, noise: float = 0.02
) -> list[Trial]:
    trials: list[Trial] = []
    while specs := bandit.next_pulls(trials):
        trials += [ran(len(trials) + k, s, outcome(s, truth, noise)) for k, s in enumerate(specs)]
    assert bandit.done(trials)
    return trials


def test_it_names_the_mixtures_that_beat_natural_best_first() -> None:
    verdict = make().verdict(play(make()))
    assert verdict.beating == ("clear", "close")
    assert verdict.candidates["clear"].difference == pytest.approx(-0.1, abs=0.03)
    worse = verdict.candidates["worse"].difference
    assert worse is not None
    assert worse > 0


def test_the_doubtful_mixture_gets_most_of_the_runs() -> None:
    trials = play(make())
    pulls = {name: sum(t.spec.candidate == name for t in trials) for name in CANDIDATES}
    assert pulls["close"] > 2 * pulls["clear"]
    assert pulls["close"] > 2 * pulls["worse"]
    assert pulls[NATURAL] == max(pulls.values())  # every difference is to natural's same seed


def test_the_budget_counts_naturals_runs_and_is_kept() -> None:
    for budget in (8, 9, 17, 40):
        trials = play(make(budget=budget))
        assert budget - 1 <= len(trials) <= budget
        assert len({(t.spec.candidate, t.spec.seed) for t in trials}) == len(trials)
        assert {t.spec.role for t in trials} == {Role.SELECT}


def test_a_margin_is_what_must_be_beaten() -> None:
    assert make(margin=0.05).verdict(play(make(margin=0.05))).beating == ("clear",)


@pytest.mark.parametrize("batch", [1, 3])
def test_what_it_asks_for_follows_from_the_ledger_alone(batch: int) -> None:
    bandit = make(batch=batch)
    trials = play(bandit)
    for upto in range(0, len(trials), 3):
        begun = trials[:upto]
        asked = [*begun]
        while specs := make(batch=batch).next_pulls(asked[::-1]):
            asked += [ran(len(asked) + k, s, outcome(s, TRUTH, 0.02)) for k, s in enumerate(specs)]
        assert {t.spec for t in asked} == {t.spec for t in trials}


def test_nothing_new_is_asked_for_while_a_batch_is_running() -> None:
    bandit = make(batch=4)
    trials = play(bandit)[:8]  # the first pulls of all
    specs = bandit.next_pulls(trials)
    running = [Trial(8 + k, spec, State.RUNNING) for k, spec in enumerate(specs)]
    assert bandit.next_pulls([*trials, *running]) == []
    assert not bandit.done([*trials, *running])
    assert bandit.next_pulls([*trials, *running[1:]]) == specs[:1]


def test_a_mixture_whose_every_run_fails_is_left_alone() -> None:
    bandit = make()
    trials: list[Trial] = []
    while specs := bandit.next_pulls(trials):
        for spec in specs:
            value = None if spec.candidate == "close" else outcome(spec, TRUTH, 0.02)
            trials.append(ran(len(trials), spec, value))
    assert sum(t.spec.candidate == "close" for t in trials) == 2
    verdict = bandit.verdict(trials)
    assert verdict.beating == ("clear",)
    assert verdict.candidates["close"].n == 0


def test_it_stops_when_the_seeds_are_used_up() -> None:
    bandit = Thresholding(CANDIDATES, FIDELITY, OBJECTIVE, range(3), budget=100)
    trials = play(bandit)
    assert len(trials) == 3 * len(CANDIDATES)


def test_adaptive_pulls_decide_more_candidates_rightly_than_equal_ones() -> None:
    """Ten candidates around the threshold, near and far, as in 1605.08671."""
    rng = np.random.default_rng(0)
    truth = 0.5 + np.array([-0.3, -0.25, -0.2, -0.05, -0.03, 0.03, 0.05, 0.2, 0.25, 0.3])
    runs, budget, candidates = 300, 4000, len(truth)
    totals = rng.normal(truth, 0.5, (runs, candidates))
    counts = np.ones((runs, candidates))
    for _ in range(budget - candidates):
        i = apt_index(counts, totals / counts, 0.5).argmin(axis=1)
        totals[np.arange(runs), i] += rng.normal(truth[i], 0.5)
        counts[np.arange(runs), i] += 1
    equal = rng.normal(truth, 0.5 / np.sqrt(budget / candidates), (runs, candidates))

    def all_right(means: np.ndarray) -> float:
        return float(((means >= 0.5) == (truth >= 0.5)).all(axis=1).mean())

    assert all_right(totals / counts) > all_right(equal) + 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 5}, "do not run each"),
        ({"batch": 0}, "at least 1"),
        ({"seeds": [1]}, "seeds"),
        ({"candidates": {NATURAL: CANDIDATES[NATURAL]}}, "nothing to compare"),
        ({"candidates": {"clear": CANDIDATES["clear"]}}, "natural"),
    ],
)
def test_what_cannot_work_is_refused(change: dict, message: str) -> None:
    settings = {"candidates": CANDIDATES, "seeds": range(9), "budget": 40, "batch": 1} | change
    with pytest.raises(StudyError, match=message):
        Thresholding(fidelity=FIDELITY, objective=OBJECTIVE, **settings)
