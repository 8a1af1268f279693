"""What a study needs once from a worker arrives, or one of mixopt's errors says why not."""

from __future__ import annotations

import os

import pytest

from mixopt.core.errors import CorpusError, TrainingError
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call

pytestmark = pytest.mark.xdist_group("ray")

TWICE = Resources(cpus=1, attempts=2)


@pytest.mark.usefixtures("ray_here")
def test_an_answer_of_a_worker_arrives() -> None:
    def answer(value: int) -> int:
        return value + 1

    assert call(answer, 1, resources=TWICE, label="counting", warn=print) == 2


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_mixopts_own_arrives_as_it_was_raised() -> None:
    def meet() -> None:
        raise CorpusError("an id out of range", where="law-0.npy", hint="Build it again")

    with pytest.raises(CorpusError) as met:
        call(meet, resources=TWICE, label="measuring", warn=print)
    assert str(met.value) == "law-0.npy: an id out of range. Build it again."


@pytest.mark.usefixtures("ray_here")
def test_a_crash_and_a_lack_of_memory_are_named_with_the_way_on() -> None:
    def crash() -> None:
        raise ZeroDivisionError("by a plug-in")

    def grow() -> None:
        raise MemoryError("8 GB")

    with pytest.raises(TrainingError, match=r"(?s)upcycling: .*by a plug-in.*same command again"):
        call(crash, resources=TWICE, label="upcycling", warn=print)
    with pytest.raises(TrainingError, match=r"upcycling: memory did not suffice: 8 GB\. Free"):
        call(grow, resources=TWICE, label="upcycling", warn=print)


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_is_lost_each_time_ends_in_one_sentence() -> None:
    def leave() -> None:
        os._exit(1)

    lines: list[str] = []
    with pytest.raises(TrainingError, match="upcycling: its worker was lost 2 times"):
        call(leave, resources=TWICE, label="upcycling", warn=lines.append)
    assert lines == ["upcycling: its worker was lost, trying again"]
