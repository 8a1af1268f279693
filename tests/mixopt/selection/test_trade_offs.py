"""What candidates gain and pay, metric by metric, by the gate's own seeds."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.selection.comparison import compare
from mixopt.selection.paired import half_interval
from mixopt.selection.trade_offs import Runs, TradeOff, trade_offs

ROWS = ("natural", "found", "other")
WEIGHTS = {"bpb/law": 0.5, "accuracy/exam": -0.5}


def runs(metric: str) -> Runs:
    rng = np.random.default_rng(len(metric))
    shift = {"natural": 0.0, "found": -0.3, "other": 0.2}
    return {
        name: {seed: 2 + shift[name] + 0.01 * float(rng.normal()) for seed in (7, 8, 9)}
        for name in ROWS
    }


def test_a_difference_has_the_gates_interval() -> None:
    found = trade_offs(WEIGHTS, runs, ROWS, seeds=3)
    assert set(found) == {"found", "other"}
    law = found["found"][0]
    values = runs("bpb/law")
    joint = compare(np.array([[values[name][seed] for seed in (7, 8, 9)] for name in ROWS]))
    assert law.metric == "bpb/law"
    assert law.difference == pytest.approx(joint.difference[0])
    assert law.high is not None
    assert law.low is not None
    assert law.high - law.low == pytest.approx(2 * joint.half[0])
    assert law.better
    assert not law.worse


def test_of_a_metric_that_is_better_higher_the_signs_turn() -> None:
    found = trade_offs(WEIGHTS, runs, ROWS, seeds=3)
    assert [it.worse for it in found["found"]] == [False, True]
    assert [it.better for it in found["other"]] == [False, True]


def test_where_a_seed_is_missing_the_interval_is_of_its_own_pairs() -> None:
    def some(metric: str) -> Runs:
        values = {name: dict(each) for name, each in runs(metric).items()}
        del values["found"][9]
        return values

    found = trade_offs(WEIGHTS, some, ROWS, seeds=3)["other"][0]
    values = some("bpb/law")
    pairs = np.array([values["other"][s] - values["natural"][s] for s in (7, 8, 9)])
    assert found.difference == pytest.approx(pairs.mean())
    assert found.high is not None
    assert found.high - pairs.mean() == pytest.approx(half_interval(pairs))


def test_without_a_common_seed_nothing_is_known() -> None:
    def none(metric: str) -> Runs:
        return {**runs(metric), "found": {}}

    found = trade_offs(WEIGHTS, none, ROWS, seeds=3)["found"][0]
    assert (found.difference, found.low, found.better, found.worse) == (None, None, False, False)


def test_a_single_metric_has_no_trade_offs() -> None:
    assert trade_offs({"bpb/law": 1.0}, runs, ROWS, seeds=3) == {}


def test_they_come_back_from_json() -> None:
    it = TradeOff("bpb/law", -0.1, None, 0.2, higher=True)
    assert TradeOff.from_json(it.to_json()) == it
