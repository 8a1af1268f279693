"""What a full run reports while it trains: a line of JSON each, read while it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mixopt.io import files
from mixopt.io.json_values import finite

LOG = "progress.jsonl"  # in the training's folder


def append(folder: Path, values: Mapping[str, Any]) -> None:
    """Add a report: `step`, the optimizer steps done, and whatever else is known; and the time.

    `began` tells the attempts at a run apart, and `resumed` says from how many tokens one went on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(finite({"time": time.time(), **values})) + "\n"
    path = folder / LOG
    with files.writing(path), path.open("ab+") as file:
        if file.tell() and not _ends_a_line(file):  # a kill tore the last one
            line = "\n" + line
        file.write(line.encode())


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"


def read(folder: Path) -> list[dict[str, Any]]:
    """The reports, by rising step.

    A run that was resumed reports the steps since its checkpoint again: of those the lines of its
    last attempt count. Lines that are torn or no reports are left out.
    """
    return LogReader(folder).all()


class LogReader:
    """Reads the reports of a run as they come.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._offset = folder / LOG, 0

    def skip(self) -> None:
        """Leave out what is there already."""
        self._lines()

    def new(self) -> list[dict[str, Any]]:
        """The reports since the last time, in the order of the file."""
        return [found for line in self._lines() if (found := _report(line)) is not None]

    def all(self) -> list[dict[str, Any]]:
        """The reports since the last time, by rising step; see `read`."""
        kept: list[dict[str, Any]] = []
        for report in self.new():
            while kept and _is_repeated(kept[-1], report):
                kept.pop()
            kept.append(report)
        return kept

    def _lines(self) -> list[bytes]:
        """Whole lines since the last time."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # another file has its name
                    self._offset = 0
                file.seek(self._offset)
                found = file.read()
        except FileNotFoundError:
            return []
        end = found.rfind(b"\n") + 1
        self._offset += end
        return found[:end].splitlines()


def _is_repeated(before: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether the attempt that reports now has trained again what `before` is of."""
    if before.get("began") != report.get("began"):
        return bool(before.get("tokens", 0) > report.get("resumed", 0))
    return bool(before["step"] > report["step"])


def _report(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None
