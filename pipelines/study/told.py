"""Rows of the table that `mixopt tell` reads: results of trials, with file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.trials import Failure
from mixopt.io import csv_files
from mixopt.pipelines.study.own_promotion import PROMOTION

# columns that hold no number
TEXTS = ("role", "candidate", "failure", "message", "initial_model", "checkpoint")
FULL_RUN = -1  # stands for a number of a trial in the row of the full run
COMPARED = ("seed", "tokens")  # columns that are compared with what was asked, as weights are
FAILURES = (Failure.DIVERGED, Failure.OUT_OF_MEMORY, Failure.GIVEN_UP)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        where: file and line.
        trial: number of the trial; `FULL_RUN` of the full run.
        asked: what `mixopt ask` wrote: `seed`, `tokens`, `mixture.<domain>`, as far as it is there.
        metrics: name → value, of the cells that are not empty.
        failure: why there is no result; None if there is one, or nothing is told.
        message: what happened, for a person.
        checkpoint: of a full run, where it is.
    """

    where: str
    trial: int
    asked: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    checkpoint: str = ""

    @property
    def name(self) -> str:
        """What it is a row of."""
        return "the full run" if self.trial == FULL_RUN else f"trial {self.trial}"

    @property
    def told(self) -> bool:
        """Whether it tells a result or a failure."""
        return bool(self.metrics) or self.failure is not None


def read_rows(path: Path) -> list[Row]:
    """The rows of a `.csv` or `.json` file, by trial.

    Raises:
        StudyError: it cannot be read, a cell is no number, or a trial is there twice.
    """
    rows = [_row(where, cells) for where, cells in _cells(path)]
    seen: dict[int, Row] = {}
    for row in rows:
        if row.trial in seen:
            raise StudyError(
                f"{row.name} is there twice, first in {seen[row.trial].where}",
                where=row.where,
                hint="Keep one of the rows",
            )
        seen[row.trial] = row
    return rows


def _cells(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and cells of each row that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StudyError(f"cannot be read: {why}", where=str(path)) from error
    if path.suffix == ".json":
        yield from _json_cells(path, text)
        return
    reader = csv.reader(text.splitlines())
    head = [csv_files.unguarded(name.strip()) for name in next(reader, [])]
    if not any(head):
        raise StudyError("is empty", where=str(path), hint="Name the table with the results")
    if len(head) == 1 and ";" in head[0]:
        raise StudyError(
            "its cells are separated by `;`", where=f"{path}:1", hint="Save it with commas"
        )
    twice = next((name for name in head if head.count(name) > 1), None)
    if twice is not None:
        raise StudyError(f"column {twice!r} is there twice", where=f"{path}:1")
    for cells in reader:
        where = f"{path}:{reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise StudyError(f"has {len(cells)} cells, and the header {len(head)}", where=where)
        yield where, {n: c.strip() for n, c in zip(head, cells, strict=True) if c.strip()}


def _json_cells(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise StudyError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError("must be a list of objects, one per trial", where=str(path))
    for number, row in enumerate(rows):
        cells = {name: value for name, value in row.items() if value is not None and value != ""}
        yield f"{path}: [{number}]", cells


def _row(where: str, cells: Mapping[str, Any]) -> Row:
    if "trial" not in cells:
        raise StudyError(
            "has no `trial`", where=where, hint="Keep the column that `mixopt ask` wrote"
        )
    texts = (*TEXTS, "trial") if cells["trial"] == PROMOTION else TEXTS
    numbers = {n: _number(f"{where}: {n}", v) for n, v in cells.items() if n not in texts}
    trial = numbers.pop("trial", FULL_RUN)
    if trial != int(trial):
        raise StudyError(f"{trial:g} is no number of a trial", where=f"{where}: trial")
    asked = {n: v for n, v in numbers.items() if n in COMPARED or n.startswith("mixture.")}
    metrics = {n: v for n, v in numbers.items() if n not in asked}
    failure = _failure(where, str(cells["failure"])) if "failure" in cells else None
    if failure is not None and metrics:
        raise StudyError("has both a failure and metrics", where=where, hint="Keep one of them")
    message, checkpoint = str(cells.get("message", "")), str(cells.get("checkpoint", ""))
    return Row(where, int(trial), asked, metrics, failure, message, checkpoint)


def _number(where: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise StudyError(f"{value!r} is no number", where=where) from None


def _failure(where: str, name: str) -> Failure:
    known = [str(failure) for failure in FAILURES]
    if name not in known:
        raise StudyError(
            f"{name!r} is no failure",
            where=f"{where}: failure",
            hint=f"Choose from {', '.join(known)}",
        )
    return Failure(name)
