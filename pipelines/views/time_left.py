"""How long the trainings of a command will take, where only those that ended tell.

Of a trainer of the user's neither speed nor parts beside the training (start, evaluation) are
known, and a full run has nothing to do with the trials. So time is not counted in FLOPs but in
trainings: the mean time of those that ended, kind by kind, at as many at once as there were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

TRIALS, LARGER, FULL_RUN = "trials", "larger size", "full run"


@dataclass
class _Running:
    """A training that runs: since when, and its reports."""

    kind: str
    since: float
    first: tuple[float, float] | None = None  # when, and the share that was trained
    last: tuple[float, float] | None = None

    def left(self, now: float, mean: float | None) -> float | None:
        """Seconds until its end, by its own speed, or by the mean time of its kind."""
        if self.first is not None and self.last is not None:
            seconds, share = self.last[0] - self.first[0], self.last[1] - self.first[1]
            if seconds > 0 and share > 0:
                return max(0.0, (1 - self.last[1]) * seconds / share - (now - self.last[0]))
        return None if mean is None else max(0.0, mean - (now - self.since))


class TimeLeft:
    """The time that is left of a command.

    Args:
        planned: kind → trainings that the command has not ended, at most, in their order.
        known: kind → seconds that trainings took which ended under earlier commands; they count
            until one ends under this one.
    """

    def __init__(
        self, planned: Mapping[str, int], known: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._planned = dict(planned)
        self._known = {kind: list(seconds) for kind, seconds in (known or {}).items()}
        self._ended: dict[str, list[float]] = defaultdict(list)
        self._running: dict[str, _Running] = {}
        self._at_once: dict[str, int] = defaultdict(lambda: 1)

    def expect(self, kind: str, trainings: int) -> None:
        """No more than so many trainings of a kind are left, running ones among them."""
        self._planned[kind] = trainings

    def begins(self, kind: str) -> None:
        """Trainings of a kind begin: of the kinds before it none is left."""
        for other in self._planned:
            if other == kind:
                return
            self._planned[other] = 0

    def started(self, key: str, kind: str, now: float) -> None:
        """A worker began the training `key`, perhaps once more."""
        self._running[key] = _Running(kind, now)
        running = sum(it.kind == kind for it in self._running.values())
        self._at_once[kind] = max(self._at_once[kind], running)

    def reported(self, key: str, share: float, now: float) -> None:
        """The training `key` is done to a share, from 0 to 1."""
        if (running := self._running.get(key)) is not None:
            running.first = running.first or (now, share)
            running.last = (now, share)

    def ended(self, key: str, now: float) -> None:
        """The training `key` has ended."""
        if (running := self._running.pop(key, None)) is not None:
            self._ended[running.kind].append(now - running.since)
            self._planned[running.kind] = max(0, self._planned.get(running.kind, 0) - 1)

    def seconds(self, now: float, kind: str = "") -> float | None:
        """Seconds that are left, of all kinds that are known or of one; None if none is known."""
        kinds = [kind] if kind else self._open()
        found = [seconds for it in kinds if (seconds := self._of(it, now)) is not None]
        return sum(found) if found else None

    def unknown(self, now: float) -> tuple[str, ...]:
        """Kinds with trainings left, of which none has ended or told its speed."""
        return tuple(kind for kind in self._open() if self._of(kind, now) is None)

    def _open(self) -> list[str]:
        return [kind for kind, left in self._planned.items() if left]

    def _mean(self, kind: str) -> float | None:
        seconds = self._ended[kind] or self._known.get(kind)
        return fmean(seconds) if seconds else None

    def _of(self, kind: str, now: float) -> float | None:
        """Seconds until all trainings of a kind have ended."""
        mean = self._mean(kind)
        running = [it.left(now, mean) for it in self._running.values() if it.kind == kind]
        told = [left for left in running if left is not None]
        waiting = max(0, self._planned.get(kind, 0) - len(running))
        if len(told) < len(running) or (waiting and mean is None):
            return None
        most = max(told, default=0.0)
        return max(most, (sum(told) + waiting * (mean or 0.0)) / self._at_once[kind])
