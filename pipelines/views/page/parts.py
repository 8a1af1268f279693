"""What a page is made of: an answer, five questions, and sections of tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Strip:
    """An interval as a line in a table's cell, in per cent of the cell's width.

    Attributes:
        low: where the interval begins.
        mid: where its middle is.
        high: where it ends.
        zero: where 0 is.
        tone: `good`, `bad` or empty where the interval holds 0.
    """

    low: float
    mid: float
    high: float
    zero: float
    tone: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than a text.

    Attributes:
        text: what it says.
        below: a second, smaller line.
        key: what its column is sorted by; its text if None.
        strip: an interval below the text.
        bar: a bar below the text, as a share of its width.
        tone: -1 a harm … 1 an improvement: colours it.
        strong: whether it is what the row is about.
        wide: whether its text may be folded.
        title: shown where the mouse rests.
    """

    text: str
    below: str = ""
    key: float | str | None = None
    strip: Strip | None = None
    bar: float | None = None
    tone: float | None = None
    strong: bool = False
    wide: bool = False
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: names of its columns.
        rows: texts or cells.
        caption: what the columns mean, below it.
        title: above it.
        chosen: index of the column that the page is about; -1 for none.
        sortable: whether a click on a column's name sorts it.
        narrow: whether its columns' names are written upwards.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    title: str = ""
    chosen: int = -1
    sortable: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure that the browser draws.

    Attributes:
        plot: the figure; its title stands above it, in the page's type.
        caption: what a mark means.
        values: where the same values stand as text, for readers without scripts.
        wide: whether it takes the page's whole width.
    """

    plot: go.Figure
    caption: str
    values: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it.

    Attributes:
        title: the heading.
        text: paragraphs on what follows.
        tables: below the text.
        figures: below the tables.
        warnings: sentences that a reader must not miss, first.
        source: files and rows that its numbers come from.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    warnings: Sequence[str] = ()
    source: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing below the heading."""
        return not (any(self.text) or self.tables or self.figures or self.warnings)


@dataclass(frozen=True)
class Answer:
    """One of the questions that a page answers on its first screen.

    Attributes:
        question: in a few words.
        short: the answer in a few words.
        detail: the sentence behind it.
        command: what to type, where that is the answer.
    """

    question: str
    short: str
    detail: str = ""
    command: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        name: of the study, or of the folder.
        kind: what the page is of: `mixopt report`.
        about: objective and size, in a line below the name.
        lead: the answer in three sentences.
        decision: the last of them.
        answers: the five questions.
        sections: in order; empty ones are not shown.
        commands: (why, command) of the next steps.
        settings: (key, value).
        versions: (key, value).
        settings_title: of the settings.
    """

    name: str
    kind: str
    about: str
    lead: Sequence[str]
    decision: str
    answers: Sequence[Answer]
    sections: Sequence[Section]
    commands: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()
    versions: Sequence[tuple[str, str]] = ()
    settings_title: str = "Settings"
    notes: Sequence[str] = field(default=())


def strips(
    intervals: Sequence[tuple[float, float, float] | None], *, better: int = -1
) -> list[Strip | None]:
    """Intervals (low, mid, high) as lines on one scale that holds 0.

    Args:
        intervals: None where there is nothing to draw.
        better: -1 where lower is better, 1 where higher is.

    >>> [strip.tone for strip in strips([(-3.0, -2.0, -1.0), (-1.0, 0.5, 2.0)]) if strip]
    ['good', '']
    """
    ends = [end for it in intervals if it is not None for end in (it[0], it[2])]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    room = (most - least) or 1.0
    least, room = least - 0.04 * room, 1.08 * room

    def at(value: float) -> float:
        return round(100 * (value - least) / room, 2)

    found: list[Strip | None] = []
    for it in intervals:
        if it is None:
            found.append(None)
            continue
        low, mid, high = it
        side = 1 if low > 0 else -1 if high < 0 else 0
        tone = "" if not side else "good" if side == better else "bad"
        found.append(Strip(at(low), at(mid), at(high), at(0.0), tone))
    return found
