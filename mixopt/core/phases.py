"""Which parameters of a mixture of experts train when: a training cut into phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mixopt.core.errors import StudyError

Trained = Literal["router", "experts", "all"]
Part = Literal["router", "experts", "shared"]  # of a model's parameters


@dataclass(frozen=True)
class Phase:
    """A part of a training's steps.

    >>> Phase("router", 0.1).trains("router"), Phase("router", 0.1).trains("experts")
    (True, False)
    >>> Phase("all", 0.9).trains("shared")
    True

    Attributes:
        what: the parameters that move: of the routers, of the experts, or all.
        share: of the training's steps.
    """

    what: Trained
    share: float

    def trains(self, part: Part) -> bool:
        """Whether parameters of that part move."""
        return self.what in ("all", part)


def check_phases(phases: Sequence[Phase]) -> None:
    """Refuse phases that are no whole training.

    Raises:
        StudyError: a share is not above 0, or they do not sum to 1.
    """
    if not phases:
        return
    for phase in phases:
        if not 0 < phase.share <= 1:
            raise StudyError(f"share must be above 0 and at most 1, is {phase.share:g}")
    total = math.fsum(phase.share for phase in phases)
    if abs(total - 1) > 1e-6:
        raise StudyError(f"the shares must sum to 1, they sum to {total:g}")


def ends(phases: Sequence[Phase], steps: int) -> list[int]:
    """The step at which each phase ends, of a training of so many.

    >>> ends([Phase("router", 0.25), Phase("all", 0.75)], 10)
    [2, 10]
    """
    sums = [math.fsum(phase.share for phase in phases[: n + 1]) for n in range(len(phases))]
    return [round(steps * total) for total in sums]


def phase_at(phases: Sequence[Phase], step: int, steps: int) -> Phase:
    """The phase of a step, counted from 0; all parameters where there are no phases."""
    for phase, end in zip(phases, ends(phases, steps), strict=True):
        if step < end:
            return phase
    return Phase("all", 1.0) if not phases else phases[-1]


def trained_steps(phases: Sequence[Phase], part: Part, step: int, steps: int) -> int:
    """How often parameters of `part` moved before step `step`.

    >>> phases = [Phase("router", 0.25), Phase("all", 0.75)]
    >>> trained_steps(phases, "router", 6, 8), trained_steps(phases, "experts", 6, 8)
    (6, 4)
    """
    if not phases:
        return step
    begins, found = 0, 0
    for phase, end in zip(phases, ends(phases, steps), strict=True):
        if phase.trains(part):
            found += max(0, min(step, end) - begins)
        begins = end
    return found
