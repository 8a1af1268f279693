"""Limits stop trials that will hardly win, as often wrongly as was asked for, and no others."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from benchmarks.tables import DATA, mixing_laws
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Limits
from mixopt.search.pruning import FEWEST, hopeless_from, limits

OBJECTIVE = Objective({"a": 2.0, "b": 1.0})


def curve(*values: float) -> list[CurvePoint]:
    """Evaluations at steps 10, 20, … whose objective has these `values`."""
    return [
        CurvePoint(10 * i, 1000 * i, {"bpb/a": v + 0.1, "bpb/b": v - 0.2, "loss/a": 3 * v})
        for i, v in enumerate(values, 1)
    ]


def chance_to_beat(x: np.ndarray, y: np.ndarray, best: float, at: float) -> float:
    """The regression written out: P(end < best) of a trial that stands `at`."""
    slope, intercept = np.polyfit(x, y, 1)
    degrees = len(x) - 2
    sigma = math.sqrt(((y - intercept - slope * x) ** 2).sum() / degrees)
    away = (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    spread = sigma * math.sqrt(1 + 1 / len(x) + away)
    return float(student.cdf((best - intercept - slope * at) / spread, degrees))


@settings(deadline=None, max_examples=200)
@given(
    trials=st.integers(FEWEST, 30),
    slope=st.floats(-0.5, 2.0),
    noise=st.floats(1e-3, 1.0),
    chance=st.floats(0.01, 0.45),
    seed=st.integers(0, 2**31),
)
def test_beyond_a_limit_the_chance_is_less_than_asked_for_and_short_of_it_more(
    trials: int, slope: float, noise: float, chance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = 3 + rng.normal(size=trials)
    y = 2 + slope * x + noise * rng.normal(size=trials)
    best = float(y.min())
    limit = hopeless_from(x, y, best, chance)
    if math.isinf(limit):
        # the slope is so unsure that the worst of all would have a chance
        assert chance_to_beat(x, y, best, 1e7) > chance * (1 - 1e-4)
        return
    assert chance_to_beat(x, y, best, limit) == pytest.approx(chance, rel=1e-6)
    for further in (1e-3, 0.1, 10.0, 1e4):
        assert chance_to_beat(x, y, best, limit + further) < chance
        assert chance_to_beat(x, y, best, limit - further) > chance


@pytest.mark.parametrize("chance", [0.05, 0.2])
def test_of_trials_at_the_limit_so_many_would_have_won_as_was_asked_for(chance: float) -> None:
    rng = np.random.default_rng(0)
    won = tried = 0
    for _ in range(4000):
        x = 3 + 0.1 * rng.normal(size=8)
        y = 0.5 + 0.8 * x + 0.03 * rng.normal(size=8)
        # one that is known beforehand: the least of the same y would be a lucky one
        limit = hopeless_from(x, y, best=2.85, chance=chance)
        if math.isfinite(limit):
            tried += 1
            won += 0.5 + 0.8 * limit + 0.03 * rng.normal() < 2.85
    assert tried > 3000
    assert won / tried == pytest.approx(chance, abs=0.02)


def test_limits_are_of_the_evaluations_after_the_warm_up_and_before_the_end() -> None:
    rng = np.random.default_rng(1)
    ends = rng.normal(2, 0.1, 10)
    known = [curve(e + 1, e + 0.6, e + 0.3, e) for e in ends + 1e-3 * rng.normal(size=10)]
    found = limits(known, OBJECTIVE, 0.05)
    assert found is not None
    assert [step for step, _ in found.most] == [10, 20, 30]
    late = limits(known, OBJECTIVE, 0.05, warmup=0.5)
    assert late is not None
    assert late.most == found.most[1:]
    assert limits(known, OBJECTIVE, 0.05, warmup=0.8) is None


def test_a_trial_is_stopped_beyond_its_limit_alone() -> None:
    known = [curve(e + 1, e + 0.5, e) for e in (2.0, 2.1, 2.3, 2.35, 2.4)]
    found = limits(known, OBJECTIVE, 0.05)
    assert found is not None
    assert found.hopeless(curve(2.9)[0]) is None  # better than all
    result = found.hopeless(curve(3.5, 2.7)[1])
    assert result is not None
    assert "objective 2.7000 at step 20" in result
    assert "below 2.0000" in result
    assert found.hopeless(CurvePoint(15, 1500, curve(9)[0].metrics)) is None  # between evaluations
    assert found.hopeless(CurvePoint(20, 2000, {"bpb/a": 9.0})) is None  # lacks a metric


def test_an_end_measured_on_other_text_moves_no_limit() -> None:
    ends = (2.0, 2.1, 2.3, 2.35, 2.4)
    same = limits([curve(e + 1, e + 0.5, e) for e in ends], OBJECTIVE, 0.1)
    other = limits([curve(e + 1, e + 0.5, e - 0.4) for e in ends], OBJECTIVE, 0.1)
    assert same is not None
    assert other is not None
    for one, two in zip(same.most, other.most, strict=True):
        assert one == pytest.approx(two)


def test_nothing_is_stopped_where_too_little_is_known() -> None:
    known = [curve(e + 1, e + 0.5, e) for e in (2.0, 2.1, 2.3, 2.35, 2.4)]
    assert limits(known[: FEWEST - 1], OBJECTIVE, 0.05) is None
    assert limits([curve(2, 1.5, 1)] * 8, OBJECTIVE, 0.05) is None  # all alike
    assert limits([curve(v) for v in (1, 2, 3, 4, 5)], OBJECTIVE, 0.05) is None  # only their ends
    rng = np.random.default_rng(0)
    assert limits([curve(*rng.normal(size=3)) for _ in range(12)], OBJECTIVE, 0.01) is None


def test_limits_travel_as_json() -> None:
    found = limits([curve(e + 1, e + 0.5, e) for e in (2.0, 2.1, 2.3, 2.35, 2.4)], OBJECTIVE, 0.1)
    assert found is not None
    assert Limits.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("family", ["5Mix", "RedPajama"])
@pytest.mark.parametrize("size", ["160M", "305M"])
def test_of_published_runs_half_are_stopped_and_hardly_a_better_one(family: str, size: str) -> None:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    table = mixing_laws(family, size)
    table = table.select((table.tokens <= 3e10) & np.isfinite(table.values).all(axis=1))
    objective = Objective(dict.fromkeys(table.metrics, 1.0))
    curves = {
        run: [
            CurvePoint(round(t / 1e6), round(t), dict(zip(table.metrics, v, strict=True)))
            for t, v in zip(table.tokens[rows], table.values[rows].tolist(), strict=True)
        ]
        for run in np.unique(table.runs).tolist()
        for rows in [np.flatnonzero(table.runs == run)]
        if 3e10 in table.tokens[rows]
    }
    stopped = wrong = seen = 0
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(list(curves)).tolist()
        known = [curves[run] for run in order[:8]]
        best = min(objective.value(c[-1].metrics) for c in known)
        found = limits(known, objective, 0.05, warmup=0.2)
        for run in order[8:] if found is not None else ():
            seen += 1
            if any(found.hopeless(point) for point in curves[run]):
                stopped += 1
                wrong += objective.value(curves[run][-1].metrics) < best
    # measured: see benchmarks/pruning.py
    assert stopped > seen / 4
    assert wrong <= 0.05 * seen
