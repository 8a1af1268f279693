"""A full run that begins from other weights or gets worse is told while it trains."""

import dataclasses
from pathlib import Path

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint
from mixopt.pipelines.study.early_warning import other_start, rise, seed_deviation
from mixopt.study.records import read_verdict
from tests.pipelines.finished_study import finished_study

BPB = Objective({"bpb/law": 1.0})
ACCURACY = Objective({"acc": -1.0}, prefix="")


def curve(*values: float, name: str = "bpb/law") -> list[CurvePoint]:
    return [
        CurvePoint(step, 1000 * step, {name: value}, 0.0) for step, value in enumerate(values, 1)
    ]


def test_a_run_that_gets_better_or_wavers_within_the_noise_says_nothing() -> None:
    assert rise([], BPB, 0.01) == ""
    assert rise(curve(3.0), BPB, 0.01) == ""
    assert rise(curve(3.0, 2.9, 2.92), BPB, 0.01) == ""


def test_a_rise_beyond_three_deviations_names_both_evaluations() -> None:
    found = rise(curve(3.0, 2.9, 2.94), BPB, 0.01)
    assert "2.9400 after 3k tokens, 0.0400 worse than 2.9000 after 2k" in found
    assert "0.0300 would be 3 standard deviations between the proxies' seeds" in found


def test_it_is_compared_with_the_best_and_not_with_the_last() -> None:
    assert rise(curve(3.0, 2.5, 2.52, 2.54), BPB, 0.01)


def test_without_repeated_seeds_a_hundredth_counts() -> None:
    assert rise(curve(3.0, 3.02), BPB, None) == ""
    assert "a hundredth of it" in rise(curve(3.0, 3.04), BPB, None)


def test_what_is_better_higher_is_told_in_its_own_direction() -> None:
    found = rise(curve(0.5, 0.6, 0.5, name="acc"), ACCURACY, 0.01)
    assert "the objective is 0.5000 after 3k tokens, 0.1000 worse than 0.6000" in found


def test_points_without_the_objectives_metrics_are_left_out() -> None:
    points = [*curve(2.9), *curve(9.9, name="bpb/code"), *curve(2.8)]
    assert rise(points, BPB, 0.01) == ""


def test_a_run_that_is_worse_before_its_first_step_than_the_model_it_was_given_is_named() -> None:
    (first,) = (dataclasses.replace(point, tokens=0) for point in curve(5.2))
    found = other_start([first, *curve(4.0)], BPB, {"bpb/law": 4.5, "bpb/code": 1.0})
    assert (
        found == "before its first step the objective is 5.2000, and of the upcycled model 4.5000"
    )


def test_an_own_start_other_text_or_a_later_evaluation_says_nothing_of_the_start() -> None:
    (first,) = (dataclasses.replace(point, tokens=0) for point in curve(5.2))
    assert other_start([first], BPB, {}) == ""
    assert other_start([first], BPB, {"bpb/law": 4.8}) == ""
    assert other_start([first], BPB, {"bpb/law": 9.0}) == ""
    assert other_start([first], Objective({"bpb/code": 1.0}), {"bpb/code": 1.0}) == ""
    assert other_start(curve(5.2), BPB, {"bpb/law": 4.5}) == ""
    assert other_start([], BPB, {"bpb/law": 4.5}) == ""


def test_the_deviation_is_that_of_the_promoted_mixture_or_else_of_the_baseline(
    tmp_path: Path,
) -> None:
    verdict = read_verdict(finished_study(tmp_path).home)
    assert verdict is not None
    promoted, baseline = verdict.winner, verdict.candidate(verdict.baseline)
    assert baseline is not None
    assert seed_deviation(verdict) == promoted.std
    once = dataclasses.replace(promoted, std=None)
    others = [each for each in verdict.candidates if each.name != promoted.name]
    assert seed_deviation(dataclasses.replace(verdict, candidates=(once, *others))) == baseline.std
    assert seed_deviation(None) is None
