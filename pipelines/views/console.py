"""Progress of a study: two bars on a terminal, elsewhere a line every 20 seconds.

Progress is counted in FLOPs, because tokens of different models differ in cost. The time left
follows from the current rate; of a trainer of the user's from the trainings that ended
(`time_left`).
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mixopt.core.formatting import duration
from mixopt.pipelines.views.time_left import TRIALS, TimeLeft
from mixopt.study.progress import Progress as Recorded
from mixopt.study.progress import write_progress

SECONDS_BETWEEN_RECORDS = 5.0
SECONDS_BETWEEN_LINES = 20.0
WIDTH_ELSEWHERE = 100  # where there is no terminal, such as a CI log or a Ray job's


def make_console() -> Console:
    """The console of every command: as wide as the terminal, 100 columns where there is none.

    Texts are printed verbatim, because names of files, domains and runs may hold `[` and `:book:`;
    style comes from `style=` and `rich.text.Text`.
    """
    console = _plain_console()
    return console if console.is_terminal else _plain_console(width=WIDTH_ELSEWHERE)


def off_screen(console: Console) -> Console:
    """A console as wide as `console`, with its colours, whose prints are captured or lost."""
    return _plain_console(
        file=io.StringIO(),
        force_terminal=console.is_terminal,
        color_system=console.color_system,
        width=console.width,
    )


def make_error_console() -> Console:
    """The console for errors, on stderr; it prints texts verbatim."""
    return _plain_console(stderr=True)


def _plain_console(**settings: Any) -> Console:
    return Console(markup=False, highlight=False, emoji=False, **settings)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of texts, each plain or with a style.

    >>> styled(("title", "bold"), ": a text").plain
    'title: a text'
    """
    return Text.assemble(*parts)


class Display:
    """Shows the phases of a study. Use `with display.phase(...)` and report FLOPs by key.

    Args:
        console: where to print.
        total: FLOPs of the whole job, as planned.
        whole: label of the bar of the whole job.
    """

    def __init__(self, console: Console, total: float = 0.0, whole: str = "whole study") -> None:
        self.console = console
        self.home: Path | None = None  # the study folder, for `mixopt status`; None keeps nothing
        self.total = total
        self.whole = whole
        self.left: TimeLeft | None = None  # of a trainer of the user's
        self._kind = TRIALS
        self._done = 0.0  # FLOPs of the phases that ended
        self._live: dict[str, float] = {}
        self._items = (0, 0)
        self._label = ""
        self._phase_total = 0.0
        self._resumed = 0.0
        self._since = time.monotonic()
        self._line_at = 0.0
        self._kept_at = 0.0
        self._began = time.monotonic()
        self._trained = 0.0  # FLOPs since then, in phases that ended
        self._bars: Progress | None = None
        self._tasks: tuple[TaskID, TaskID] | None = None
        self._rate = 0.0

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print a line above the bars."""
        (self._bars.console if self._bars else self.console).print(text, style=style)

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self.say(styled(("!", "yellow"), f" {text}"))

    def skip(self, total: float) -> None:
        """Count a phase of `total` FLOPs as done."""
        self._done += total

    @contextlib.contextmanager
    def phase(
        self, label: str, total: float, items: int, done: dict[str, float], kind: str = TRIALS
    ) -> Iterator[None]:
        """Show a phase of `total` FLOPs in `items` pieces, `done` of them finished before.

        Args:
            label: what is shown.
            total: FLOPs.
            items: pieces.
            done: piece → its FLOPs.
            kind: of the trainings, whose times compare.
        """
        self._label, self._phase_total, self._kind = label, total, kind
        if self.left is not None:
            self.left.begins(kind)
        self._live = dict(done)
        self._items = (len(done), items)
        self._resumed = sum(done.values())
        self._since, self._line_at = time.monotonic(), time.monotonic()
        self._keep()
        try:
            if not self.console.is_terminal:
                self.console.print(f"{label}: {items - len(done)} of {items} to train")
                yield
                return
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                *self._columns_of_left(),
                console=self.console,
                transient=True,
                speed_estimate_period=45,
            )
            with self._bars:
                self._tasks = (
                    self._bars.add_task(
                        label, total=total, completed=int(self._resumed), note="", left=""
                    ),
                    self._bars.add_task(
                        self.whole,
                        total=max(self.total, self._done + total),
                        completed=int(self._done + self._resumed),
                        note="",
                        left="",
                    ),
                )
                self._draw()
                yield
        finally:
            self._bars, self._tasks = None, None
            self._trained += sum(self._live.values()) - self._resumed
            self._live, self._resumed = {}, 0.0
            self._done += total

    def _columns_of_left(self) -> tuple[ProgressColumn, ...]:
        if self.left is not None:
            return (TextColumn("{task.fields[left]}", markup=False),)
        return (TextColumn("· left"), TimeRemainingColumn(compact=True))

    def started(self, key: str) -> None:
        """Record that a worker began piece `key`."""
        if self.left is not None:
            self.left.started(key, self._kind, time.monotonic())

    def progress(
        self,
        key: str,
        flops: float,
        rate: float = 0.0,
        share: float | None = None,
        resumed: float = 0.0,
    ) -> None:
        """Record that piece `key` has done `flops` FLOPs so far, at `rate` tokens per second.

        Args:
            key: of the piece.
            flops: so far.
            rate: 0 where it is not known.
            share: of the piece that is done.
            resumed: FLOPs of it that were done before this attempt; those of the first attempt in
                the phase are no work of this command.
        """
        if self.left is not None and share is not None:
            self.left.reported(key, share, time.monotonic())
        if key not in self._live:
            self._goes_on(resumed)
        self._live[key] = flops
        self._rate = rate or self._rate
        self._draw()

    def _goes_on(self, resumed: float) -> None:
        """Count FLOPs of earlier commands: bars begin with them, and no speed has them."""
        self._resumed += resumed
        for task in () if self._bars is None else self._bars.tasks:
            task.completed += resumed  # `update` would take it for this moment's work

    def finished(self, key: str, flops: float) -> None:
        """Record that piece `key` is done."""
        if self.left is not None:
            self.left.ended(key, time.monotonic())
        self._live[key] = flops
        self._items = (self._items[0] + 1, self._items[1])
        self._keep()
        self._draw()

    def _keep(self) -> None:
        """Write how far the command is for `mixopt status`."""
        if self.home is None:
            return
        self._kept_at = time.monotonic()
        now = sum(self._live.values())
        trained, flops = self._trained + now - self._resumed, self._done + now
        planned = max(self.total, self._done + self._phase_total)
        left = (planned - flops) * (self._kept_at - self._began) / trained if trained > 0 else None
        untimed: tuple[str, ...] = ()
        if self.left is not None:
            left = self.left.seconds(self._kept_at)
            untimed = self.left.unknown(self._kept_at)
        stage, (done, of) = self._label, self._items
        record = Recorded(stage, done, of, flops, planned, left, time.time(), untimed=untimed)
        write_progress(self.home, record)

    def _draw(self) -> None:
        if time.monotonic() - self._kept_at >= SECONDS_BETWEEN_RECORDS:
            self._keep()
        now = sum(self._live.values())
        note = f"{self._items[0]}/{self._items[1]}"
        if self._rate:
            note += f" · {self._rate:,.0f} tok/s each"
        if self._bars is not None and self._tasks is not None:
            here, whole = self._shown_left(self._kind), self._shown_left()
            self._bars.update(self._tasks[0], completed=now, note=note, left=here)
            self._bars.update(self._tasks[1], completed=self._done + now, left=whole)
        elif time.monotonic() - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            spent = self._line_at - self._since
            speed = (now - self._resumed) / spent
            left = duration(max(0.0, self._phase_total - now) / speed) if speed > 0 else "?"
            if self.left is not None:
                left = self._shown_left(self._kind) or "?"
            share = now / self._phase_total if self._phase_total else 1.0
            self.console.print(f"  {self._label}: {share:4.0%} · {note} · about {left} left")

    def _shown_left(self, kind: str = "") -> str:
        """The time that is left of trainings of a kind, or of all; empty where it is not known."""
        seconds = None if self.left is None else self.left.seconds(time.monotonic(), kind)
        return "" if seconds is None else duration(seconds)
