"""Judging a study again gives chance no more than was planned before the first verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult
from mixopt.selection.gate import judge
from mixopt.selection.gate_words import digits
from mixopt.selection.looks import Looks
from mixopt.selection.paired import seeds_needed
from mixopt.selection.runs import Rule, Selection

FIDELITY = Fidelity("tiny", 1_000, 10_000)
CANDIDATES = {
    "natural": Mixture.of({"a": 1, "b": 1, "c": 2}),
    "recommended": Mixture.of({"a": 6, "b": 1, "c": 1}),
    "best observed": Mixture.of({"a": 1, "b": 6, "c": 1}),
    "uniform": Mixture.uniform("abc"),
    "own": Mixture.of({"a": 1, "b": 1, "c": 6}),
}
GAMES, LOOKS = 200, 5


def selection(seeds: int, rule: Rule = "repeat") -> Selection:
    """Five candidates with confidence .9; successive rejects spends as much as repeating would."""
    rejects = rule == "successive-rejects"
    return Selection(
        CANDIDATES,
        FIDELITY,
        Objective({"web": 1}),
        range(seeds * (2 if rejects else 1)),
        confidence=0.9,
        budget=seeds * len(CANDIDATES) if rejects else None,
        rule=rule,
    )


def grown(at: Selection, trials: Sequence[Trial], values: np.ndarray) -> list[Trial]:
    """`trials` and what `at` asks for besides, with `values` (candidates, seeds) of their runs."""
    found, names = list(trials), list(CANDIDATES)
    while specs := at.next_pulls(found):
        for spec in specs:
            value = float(values[names.index(spec.candidate), spec.seed])
            result = TrialResult({"bpb/web": value}, (), Cost())
            found.append(Trial(len(found), spec, State.COMPLETE, result))
    return found


def promotes(values: np.ndarray, rule: Rule, planned: int) -> bool:
    """Whether one of five looks promotes; with 1 planned, each is treated as the first."""
    looks, trials = Looks(planned), []
    for number in range(LOOKS):
        at = selection(3 + number, rule)
        look = looks.at(f"{number}", at.confidence)
        looks = looks.take(look) if planned > 1 else looks
        trials = grown(at, trials, values)
        if judge(dataclasses.replace(at, look=look), trials).improved:
            return True
    return False


def equal_mixtures(noisy: int | None = None) -> np.ndarray:
    """(games, candidates, seeds) of the same mean; one candidate may be five times as noisy."""
    scatter = np.ones((len(CANDIDATES), 1))
    if noisy is not None:
        scatter[noisy] = 5
    return np.random.default_rng(0).normal(size=(GAMES, len(CANDIDATES), 2 * (3 + LOOKS))) * scatter


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "noisy"),  # which mixture is five times as noisy: none, natural, a candidate
    [("repeat", None), ("repeat", 1), ("successive-rejects", 0), ("successive-rejects", 1)],
)
def test_five_looks_at_equal_mixtures_promote_no_oftener_than_one_may(
    rule: Rule, noisy: int | None
) -> None:
    wrong = [promotes(values, rule, planned=LOOKS) for values in equal_mixtures(noisy)]
    assert np.mean(wrong) <= 0.1


@pytest.mark.slow
def test_five_looks_that_share_nothing_promote_too_often() -> None:
    wrong = [promotes(values, "repeat", planned=1) for values in equal_mixtures()]
    assert np.mean(wrong) > 0.15


def test_no_look_beyond_those_planned_promotes_however_clear_the_difference() -> None:
    values = np.random.default_rng(0).normal(size=(len(CANDIDATES), 16))
    trials = grown(selection(3), [], values)
    better = values - 100 * np.eye(len(CANDIDATES))[1][:, None]
    looks = Looks(1)
    refused = judge(dataclasses.replace(selection(3), look=looks.at("first", 0.9)), trials)
    assert (refused.promoted, refused.improved) == ("natural", False)
    looks = looks.take(looks.at("first", 0.9))
    late = dataclasses.replace(selection(8), look=looks.at("second", 0.9))
    verdict = judge(late, grown(selection(8), [], better))
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert "the 1 look that the study planned (select.looks) came before this one" in verdict.reason
    assert "a new study" in verdict.reason


def test_equal_shares_of_the_error_and_none_beyond() -> None:
    looks, levels = Looks(2), []
    for basis in ("first", "second", "third"):
        look = looks.at(basis, 0.9)
        looks = looks.take(look)
        levels.append(look.level)
    assert levels == [pytest.approx(0.05), pytest.approx(0.05), 0]
    assert looks.left == 0


def test_the_same_basis_again_is_the_same_look() -> None:
    looks = Looks(2)
    first = looks.at("first", 0.9)
    looks = Looks.from_json(looks.take(first).to_json())
    assert looks.at("first", 0.9) == first
    assert looks.take(first) == looks
    assert looks.at("other", 0.9).number == 2


def test_a_refusal_says_how_many_seeds_its_difference_and_scatter_ask_for() -> None:
    values = np.zeros((len(CANDIDATES), 3))
    values[1] = [-3, -1, 0.5]
    values[2:] = [[1, 2, 3]] * 3
    verdict = judge(selection(3), grown(selection(3), [], values))
    asked = seeds_needed(values[1], 0.1 / 4)
    assert asked is not None
    assert f"{asked} seeds with this difference and scatter would pass" in verdict.reason


def test_the_seeds_asked_for_are_the_fewest_that_pass() -> None:
    from scipy.stats import t

    gaps = np.array([-3.0, -1.0, 0.5])
    asked = seeds_needed(gaps, 0.02)
    assert asked is not None
    p = [t.cdf(gaps.mean() / gaps.std(ddof=1) * n**0.5, n - 1) for n in (asked - 1, asked)]
    assert p[1] <= 0.02 < p[0]
    assert seeds_needed(-gaps, 0.02) is None
    assert seeds_needed(gaps[:1], 0.02) is None


def test_where_no_look_is_left_more_seeds_are_for_a_new_study() -> None:
    values = np.zeros((len(CANDIDATES), 3))
    values[1] = [-3, -1, 0.5]
    values[2:] = [[1, 2, 3]] * 3
    for planned, way in ((1, "No look is left (select.looks); in a new study "), (2, "")):
        at = dataclasses.replace(selection(3), look=Looks(planned).at("first", 0.9))
        reason = judge(at, grown(at, [], values)).reason
        assert f". {way}" in reason
        assert ("in a new study" in reason) == (planned == 1)
        assert "seeds with this difference and scatter would pass" in reason


@pytest.mark.parametrize(("p", "level"), [(0.10004, 0.1), (0.0126, 0.0125), (0.0128, 0.013)])
def test_a_p_value_and_its_level_are_seen_to_differ(p: float, level: float) -> None:
    shown = digits(p, level)
    assert f"{p:.{shown}g}" != f"{level:.{shown}g}"
