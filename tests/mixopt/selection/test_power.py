"""What a selection is said to see, it sees: the gate itself promotes it about so often."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult
from mixopt.selection.gate import judge
from mixopt.selection.looks import Look
from mixopt.selection.power import POWERS, smallest_differences
from mixopt.selection.runs import Rule, Selection

OBJECTIVE = Objective({"web": 1})
NOISE, SHARED = 0.01, 0.05  # of a run, and of a seed in all mixtures


def selection(candidates: int, seeds: int, rule: Rule, level: float) -> Selection:
    named = {f"c{k}": Mixture.of({"a": k + 1, "b": 1}) for k in range(candidates - 1)}
    rejects = rule == "successive-rejects"
    return Selection(
        {"natural": Mixture.of({"a": 1, "b": 3}), **named},
        Fidelity("tiny", 1_000, 10_000),
        OBJECTIVE,
        range(100, 100 + seeds * (2 if rejects else 1)),
        budget=candidates * seeds if rejects else None,
        rule=rule,
        look=Look("", 1, 1, 0.9, level),
    )


def promoted(asked: Selection, better: float, game: int) -> str:
    """What the gate promotes where the candidate c0 is `better`, and all others as natural."""
    rng = np.random.default_rng([game, 17])
    common = {seed: SHARED * rng.standard_normal() for seed in asked.seeds}
    trials: list[Trial] = []
    while specs := asked.next_pulls(trials):
        for spec in specs:
            value = common[spec.seed] + NOISE * rng.standard_normal()
            value -= better if spec.candidate == "c0" else 0.0
            done = TrialResult({"bpb/web": value}, (), Cost())
            trials.append(Trial(len(trials), spec, State.COMPLETE, done))
    return judge(asked, trials).promoted


def rate(asked: Selection, better: float, games: int) -> float:
    return float(np.mean([promoted(asked, better, game) == "c0" for game in range(games)]))


CASES = [
    (4, 3, "repeat", 0.1),
    (2, 3, "repeat", 0.1),
    (4, 6, "repeat", 0.02),
    (4, 3, "successive-rejects", 0.1),
]


def check(case: tuple[int, int, Rule, float], games: int) -> None:
    candidates, seeds, rule, level = case
    asked = selection(candidates, seeds, rule, level)
    rejects = rule == "successive-rejects"
    seen = smallest_differences(candidates, asked.schedule, level, rejects=rejects)
    assert list(seen) == list(POWERS)
    for power, difference in seen.items():
        found = rate(asked, NOISE * difference, games)
        error = math.sqrt(power * (1 - power) / games)
        assert found == pytest.approx(power, abs=3 * error + 0.015)


@pytest.mark.parametrize("case", CASES)
def test_the_gate_promotes_it_about_so_often(case: tuple[int, int, Rule, float]) -> None:
    check(case, games=150)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gate_promotes_it_so_often_to_a_few_per_cent(
    case: tuple[int, int, Rule, float],
) -> None:
    check(case, games=1000)


def test_two_deviations_are_seen_as_often_as_the_benchmark_says() -> None:
    # docs/trust.md: 58 % of studies with three candidates and seeds
    half, most = (smallest_differences(4, [3], 0.1)[power] for power in (0.5, 0.8))
    assert half < 2.0 < most
    share = 0.5 + 0.3 * (2.0 - half) / (most - half)
    assert share == pytest.approx(0.58, abs=0.02)


def test_more_seeds_see_less_and_more_candidates_or_looks_see_no_more() -> None:
    see = partial(smallest_differences, level=0.1)
    assert see(4, [6])[0.8] < see(4, [3])[0.8] < see(4, [2])[0.8]
    assert see(2, [3])[0.8] < see(4, [3])[0.8] < see(8, [3])[0.8]
    assert see(4, [3])[0.8] < smallest_differences(4, [3], 0.02)[0.8]


def test_a_level_that_nothing_reaches_sees_nothing() -> None:
    assert set(smallest_differences(3, [2], 1e-6).values()) == {math.inf}


def test_it_is_the_same_each_time() -> None:
    assert smallest_differences(3, [3], 0.1) == smallest_differences(3, (3,), 0.1)
