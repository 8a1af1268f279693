"""The driver waits for nodes, says so once, and stops after a stated time."""

from __future__ import annotations

import pytest

from mixopt.core.errors import TrainingError
from mixopt.workers.absence import PAUSE_SECONDS, Absence


class Clock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_waiting_is_announced_once_until_a_worker_is_heard() -> None:
    absence = Absence()
    assert [absence.begins() for _ in range(3)] == [True, False, False]
    absence.ends()
    assert absence.begins()


def test_an_absence_that_lasts_too_long_stops_the_study_and_says_what_to_do() -> None:
    clock = Clock()
    absence = Absence(patience=600, clock=clock)
    absence.begins()
    clock.now += 600
    absence.begins()
    clock.now += 1
    with pytest.raises(TrainingError, match=r"for 10 minutes.*run the same command again"):
        absence.begins()


def test_a_worker_that_is_heard_starts_the_time_anew() -> None:
    clock = Clock()
    absence = Absence(patience=600, clock=clock)
    for _ in range(3):
        absence.begins()
        clock.now += 500
        absence.ends()
    assert absence.begins()


def test_nodes_that_are_lost_as_soon_as_they_come_do_not_prolong_the_time() -> None:
    clock = Clock()
    absence = Absence(patience=600, clock=clock)
    absence.loses_a_node()
    clock.now += 400
    absence.loses_a_node()
    clock.now += 400
    with pytest.raises(TrainingError, match="10 minutes"):
        absence.loses_a_node()


def test_no_work_is_handed_out_just_after_a_node_was_lost() -> None:
    clock = Clock()
    absence = Absence(clock=clock)
    assert not absence.pausing
    absence.loses_a_node()
    assert absence.pausing
    clock.now += PAUSE_SECONDS
    assert not absence.pausing
