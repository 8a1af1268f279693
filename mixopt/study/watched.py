"""What was seen of a full run while it trained: `watched.json` in the promotion's folder.

It follows from the run's curve, and is written anew at each evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mixopt.io import files
from mixopt.io.trial_files import read_object
from mixopt.selection.band import Place

FILE = "watched.json"  # in a promotion's folder


class Kind(StrEnum):
    """What a remark is about."""

    START = "start"  # a trainer's first evaluation is not that of the model that it was given
    RISE = "rise"  # the objective got worse
    WORSE = "worse"  # the difference to the baseline's run left the expected band
    BETTER = "better"  # the same on the good side: no warning


@dataclass(frozen=True)
class Compared:
    """An evaluation beside the baseline's full run at the same tokens, as people read it.

    Attributes:
        tokens: of training.
        seconds: of training.
        difference: of the objective, to the baseline's.
        low: lower end of the band; None without one.
        high: its upper end.
        place: in the band; None without one.
    """

    tokens: int
    seconds: float
    difference: float
    low: float | None = None
    high: float | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Remark:
    """What was said at an evaluation.

    Attributes:
        tokens: of the evaluation.
        kind: what it is about.
        text: a sentence or more, without the last full stop.
        advice: what to do about it while the run trains; likewise.
    """

    tokens: int
    kind: Kind
    text: str
    advice: str = ""

    @property
    def said(self) -> str:
        """The text with the advice."""
        return f"{self.text}. {self.advice}" if self.advice else self.text


@dataclass(frozen=True)
class Watched:
    """What was seen of a full run.

    Attributes:
        compared: its evaluations beside the baseline's full run, oldest first; those that it has no
            evaluations around are left out.
        remarks: oldest first.
    """

    compared: tuple[Compared, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The last warning of each kind, oldest first, with what to do while the run trains."""
        return tuple(it.said for it in self._last_of_each_kind)

    @property
    def findings(self) -> tuple[str, ...]:
        """The same of a run that has ended, without what to do."""
        return tuple(it.text for it in self._last_of_each_kind)

    @property
    def _last_of_each_kind(self) -> list[Remark]:
        last = {it.kind: it for it in self.remarks if it.kind is not Kind.BETTER}
        return sorted(last.values(), key=lambda it: it.tokens)

    def write(self, promotion: Path) -> None:
        """Keep it in the promotion's folder."""
        files.keep_json(promotion / FILE, dataclasses.asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Watched:
        """What `dataclasses.asdict` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another shape.
        """
        rows = [
            Compared(**{**row, "place": None if row["place"] is None else Place(row["place"])})
            for row in values["compared"]
        ]
        remarks = [
            Remark(it["tokens"], Kind(it["kind"]), it["text"], it.get("advice", ""))
            for it in values["remarks"]
        ]
        return cls(tuple(rows), tuple(remarks))


def read_watched(promotion: Path) -> Watched:
    """What was seen of the full run of the promotion in that folder; nothing before it began."""
    try:
        return Watched.from_json(read_object(promotion / FILE))
    except (KeyError, TypeError, ValueError):  # absent, or of another version
        return Watched()
