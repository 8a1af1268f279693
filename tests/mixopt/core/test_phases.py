"""Phases cut a training's steps: each step is of one, and moves are counted by part."""

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.phases import Phase, check_phases, ends, phase_at, trained_steps

THREE = (Phase("router", 0.2), Phase("experts", 0.3), Phase("all", 0.5))


def test_every_step_is_of_the_phase_that_its_share_gives() -> None:
    assert ends(THREE, 10) == [2, 5, 10]
    assert [phase_at(THREE, step, 10).what for step in range(10)] == (
        ["router"] * 2 + ["experts"] * 3 + ["all"] * 5
    )
    assert phase_at((), 3, 10).what == "all"
    assert phase_at(THREE, 10, 10).what == "all"


def test_moves_are_counted_as_if_every_step_was_looked_at() -> None:
    for part in ("router", "experts", "shared"):
        for step in range(11):
            looked = sum(phase_at(THREE, s, 10).trains(part) for s in range(step))
            assert trained_steps(THREE, part, step, 10) == looked
    assert trained_steps((), "shared", 7, 10) == 7


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((Phase("router", 0.5), Phase("all", 0.6)), "sum to 1.1"),
        ((Phase("router", 0.0), Phase("all", 1.0)), "above 0"),
    ],
)
def test_what_is_no_whole_training_is_refused(phases: tuple[Phase, ...], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        check_phases(phases)
    check_phases(())
    check_phases(THREE)
