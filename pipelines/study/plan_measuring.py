"""`mixopt plan` measures this machine's speed: which part of how many, and for how long so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from mixopt.core.formatting import duration
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.plan_steps import (
    Room,
    Step,
    asks_for_cohort,
    can_be_tried,
    measured_speed,
    planned_room,
)
from mixopt.study.settings import Study

TITLE = "measuring this machine's speed"
SKIP = "--no-measure skips it"
COHORT = "how many trials train best as one (ray.cohort: auto)"
FIXED = len(f"⠋ {TITLE}, : 0:00:00 in all; {SKIP}")  # columns beside the part's name


@dataclass(frozen=True)
class Shape:
    """What is measured once: the first step of a shape, and the steps that it stands for."""

    step: Step
    cohort: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        together = f", {self.cohort} as one" if self.cohort > 1 else ""
        return f"{', '.join(self.names)}{together}"


class Shown:
    """Says what is measured: on a terminal in one line with a clock, elsewhere a line per part.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn(f"{TITLE}, {{task.description}}:", markup=False),
            TimeElapsedColumn(),
            TextColumn(f"in all; {SKIP}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """While anything is measured."""
        began = time.monotonic()
        self._print(f"{TITLE} ({SKIP})")
        with self._bar:
            yield
        self._print(f"measured in {duration(time.monotonic() - began)}")

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """While `what` is measured."""
        began = time.monotonic()
        room = max(12, self.console.width - FIXED)
        shown = what if len(what) <= room else f"{what[: room - 1]}…"
        if self._task is None:
            self._task = self._bar.add_task(shown, total=None)
        self._bar.update(self._task, description=shown)
        self._print(f"  {what} …")
        yield
        self._print(f"  {what}: {duration(time.monotonic() - began)}")

    def _print(self, line: str) -> None:
        if not self.console.is_terminal:
            self.console.print(line, style="dim", soft_wrap=True)


def measure(
    trainings: Sequence[Step], study: Study, slots: int, corpus: Corpus, console: Console
) -> tuple[Room, dict[str, float]]:
    """Where the trainings run, and name of a step → tokens per second of its cohorts.

    Without speeds of steps whose models are too large to be tried here.
    """
    shown = Shown(console)
    with shown.all():
        cohort = asks_for_cohort(trainings, study, slots)
        with shown.part(f"first {COHORT}") if cohort else contextlib.nullcontext():
            room = planned_room(trainings, study, slots)
        shapes, speeds = _shapes(trainings, room), dict[str, float]()
        for number, shape in enumerate(shapes, start=1):
            with shown.part(f"{number} of {len(shapes)}: {shape}"):
                speed = measured_speed(shape.step, shape.cohort, study, corpus)
            if speed is not None:
                speeds |= dict.fromkeys(shape.names, speed)
    return room, speeds


def _shapes(trainings: Sequence[Step], room: Room) -> list[Shape]:
    """What has to be measured: each shape and size of cohort once, those that can be tried."""
    found: dict[tuple[object, int], list[Step]] = {}
    for step in trainings:
        # cohorts that are handed out together differ by one at most: the larger size is timed
        found.setdefault((step.model, step.cohorts(room)[0]), []).append(step)
    return [
        Shape(steps[0], cohort, tuple(step.name for step in steps))
        for (_, cohort), steps in found.items()
        if can_be_tried(steps[0])
    ]
