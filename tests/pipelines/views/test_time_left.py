"""The time left by trainings that ended: their mean, kind by kind, and how many run at once."""

from __future__ import annotations

import pytest

from mixopt.pipelines.views.time_left import FULL_RUN, LARGER, TRIALS, TimeLeft


def ran(left: TimeLeft, kind: str, lengths: list[float], at_once: int = 1, now: float = 0) -> float:
    """Let trainings of these lengths end, a few at once; when the last one has."""
    for k in range(0, len(lengths), at_once):
        batch = lengths[k : k + at_once]
        for n, _ in enumerate(batch):
            left.started(f"{kind} {k + n}", kind, now)
        for n, seconds in enumerate(batch):
            left.ended(f"{kind} {k + n}", now + seconds)
        now += max(batch)
    return now


def test_nothing_is_known_before_a_training_has_ended() -> None:
    left = TimeLeft({TRIALS: 10})
    assert left.seconds(0.0) is None
    left.started("1", TRIALS, 0.0)
    assert left.seconds(50.0) is None
    assert left.unknown(50.0) == (TRIALS,)


def test_it_is_the_mean_times_the_trainings_over_those_at_once() -> None:
    left = TimeLeft({TRIALS: 10})
    now = ran(left, TRIALS, [50.0, 70.0, 60.0, 60.0], at_once=2)
    assert left.seconds(now) == pytest.approx(6 * 60 / 2)
    assert left.unknown(now) == ()


def test_minutes_between_trainings_do_not_count() -> None:
    left = TimeLeft({TRIALS: 4})
    ran(left, TRIALS, [60.0, 60.0])  # Ray starts, a surrogate is fitted: an hour later
    assert left.seconds(3600.0) == pytest.approx(120)


def test_a_full_run_is_not_guessed_from_trials() -> None:
    left = TimeLeft({TRIALS: 3, FULL_RUN: 1})
    now = ran(left, TRIALS, [60.0])
    assert left.seconds(now) == pytest.approx(120)
    assert left.unknown(now) == (FULL_RUN,)
    left.begins(FULL_RUN)
    assert left.seconds(now) is None
    left.started("full run", FULL_RUN, now)
    left.reported("full run", 0.1, now + 30)  # its start is no training
    left.reported("full run", 0.2, now + 130)
    assert left.seconds(now + 130) == pytest.approx(800)
    assert left.seconds(now + 150) == pytest.approx(780)
    assert left.unknown(now + 150) == ()


def test_each_size_has_its_own_mean() -> None:
    left = TimeLeft({TRIALS: 2, LARGER: 4})
    now = ran(left, TRIALS, [10.0])
    assert (left.seconds(now), left.unknown(now)) == (pytest.approx(10), (LARGER,))
    left.begins(LARGER)
    now = ran(left, LARGER, [100.0], now=now)
    assert left.seconds(now) == pytest.approx(300)
    assert left.seconds(now, LARGER) == pytest.approx(300)


def test_what_runs_is_counted_by_what_is_left_of_it() -> None:
    left = TimeLeft({TRIALS: 3})
    now = ran(left, TRIALS, [60.0])
    left.started("next", TRIALS, now)
    assert left.seconds(now + 45) == pytest.approx(15 + 60)
    assert left.seconds(now + 90) == pytest.approx(60)  # late, and never below 0


def test_an_attempt_that_was_lost_begins_anew() -> None:
    left = TimeLeft({TRIALS: 2})
    left.started("1", TRIALS, 0.0)
    left.started("1", TRIALS, 500.0)
    left.ended("1", 560.0)
    assert left.seconds(560.0) == pytest.approx(60)


def test_earlier_commands_tell_until_a_training_has_ended_under_this_one() -> None:
    left = TimeLeft({TRIALS: 10}, {TRIALS: [30.0, 50.0]})
    assert left.seconds(0.0) == pytest.approx(400)
    now = ran(left, TRIALS, [100.0])
    assert left.seconds(now) == pytest.approx(900)


def test_a_selection_of_fewer_candidates_than_planned_takes_less() -> None:
    left = TimeLeft({TRIALS: 12}, {TRIALS: [10.0]})
    left.expect(TRIALS, 9)
    assert left.seconds(0.0) == pytest.approx(90)
