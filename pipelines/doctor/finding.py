"""What every check of `mixopt doctor` gives: findings, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mixopt.study.settings import Study


class Level(StrEnum):
    """How a finding counts."""

    FINE = "fine"
    NOTE = "note"  # works, but worth knowing
    BROKEN = "broken"  # must be put right: the exit code says so


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what kind of thing: versions, devices, ray, …
        level: how it counts.
        text: a sentence without its full stop.
        fix: what to do, a sentence without its full stop; empty where nothing is to be done.
    """

    check: str
    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Place:
    """Where mixopt is to work.

    Attributes:
        folder: in which studies lie, or the study's own folder.
        study: the study that is asked about; None for the machine alone.
    """

    folder: Path
    study: Study | None = None


Check = Callable[[Place], Iterable[Finding]]
