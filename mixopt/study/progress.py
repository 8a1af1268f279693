"""How far the active driver of a study is, in a file that views read: `progress.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixopt.core.errors import FileError
from mixopt.io import files
from mixopt.io.trial_files import read_object

FILE = "progress.json"  # in a study folder


@dataclass(frozen=True)
class Progress:
    """Where a command stood when it wrote this.

    Attributes:
        stage: what it was training, such as `round 1 of 2`.
        done: trainings of the stage that had ended.
        of: trainings of the stage.
        flops: training FLOPs of the command so far, those of earlier runs included.
        planned: training FLOPs of the whole command, at most.
        seconds_left: until the command has trained all of them; None where that is not known yet.
        at: seconds since 1970.
        pid: process of the driver.
        untimed: trainings that `seconds_left` leaves out, because nothing tells how long they take.
    """

    stage: str
    done: int
    of: int
    flops: float
    planned: float
    seconds_left: float | None
    at: float
    pid: int = field(default_factory=os.getpid)
    untimed: Sequence[str] = ()


def write_progress(home: Path, progress: Progress) -> None:
    """Keep `progress` in the study folder `home`; a full disk does not stop the study."""
    with contextlib.suppress(FileError):
        files.write_json(home / FILE, dataclasses.asdict(progress))


def read_progress(home: Path) -> Progress | None:
    """What the last driver of the study in `home` wrote; None where there is nothing to read."""
    try:
        return Progress(**read_object(home / FILE))
    except TypeError:  # absent, or of another version
        return None
