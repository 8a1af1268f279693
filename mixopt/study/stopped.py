"""The error that a study's last command stopped with, kept until a command goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixopt.core import urls
from mixopt.core.errors import FileError
from mixopt.io import files
from mixopt.io.trial_files import read_object

FILE = "stopped.json"  # in a study folder


@dataclass(frozen=True)
class Stop:
    """Why and when a study stopped.

    Attributes:
        error: its message.
        at: seconds since 1970.
    """

    error: str
    at: float


@contextlib.contextmanager
def keeping_stop(home: Path, *, unless: type[Exception]) -> Iterator[None]:
    """Keep the error that ends the block, passwords masked; an earlier one is forgotten.

    Args:
        home: the study folder.
        unless: errors that stop nothing.
    """
    (home / FILE).unlink(missing_ok=True)
    try:
        yield
    except unless:
        raise
    except Exception as error:
        message = urls.masked(str(error) or type(error).__name__)
        with contextlib.suppress(FileError):  # a full disk: the error itself is what counts
            files.write_json(home / FILE, {"error": message, "at": time.time()})
        raise


def read_stop(home: Path) -> Stop | None:
    """What stopped the study in `home`; None if nothing did, or it went on since."""
    values = read_object(home / FILE)
    error, at = values.get("error"), values.get("at")
    if not isinstance(error, str) or not isinstance(at, int | float):
        return None
    return Stop(error, float(at))
