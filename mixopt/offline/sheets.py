"""A CSV file of finished runs as columns, each cell with the line that it stands on.

Read with the standard library's reader and not with polars: it knows the line of every row, also
behind quoted line breaks, and a person with 500 rows needs to know which one is wrong. 4,096 rows
of 120 columns take .3 s.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mixopt.core.counts import parse_count
from mixopt.core.errors import RunsError
from mixopt.io.csv_files import unguarded
from mixopt.offline.numerals import PERCENT, Numerals, is_missing

# comments, and a line by which Excel knows the delimiter
PREAMBLE = re.compile(r'(?:#[^,;\t|\r\n]*\r?\n)*(?:"?sep=(.)"?\r?\n)?')
DELIMITERS = (",", ";", "\t", "|")
OTHER_FORMATS = (
    (b"pk\x03\x04", "a workbook or an archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook"),
    (b"par1", "Parquet"),
    (b"\x1f\x8b", "compressed"),
    *((mark, "a page of HTML or XML") for mark in (b"<!doctype", b"<html", b"<?xml")),
    (b'{"', "JSON"),
    (b"[{", "JSON"),
)
"""First bytes of files that users mistake for CSV."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
UNNAMED = "(unnamed)"  # what a first column without a name is called


@dataclass
class Sheet:
    """The cells of one CSV file.

    Attributes:
        path: the file.
        columns: names in the order of the file.
        cells: column → n texts, stripped.
        lines: (n,) the line of each row in the file; the header's is 1.
        numerals: how the file writes numbers.
        notes: what was unusual about the file, a sentence each.
        cell_lines: column → (n,) the lines of its cells, where a row comes from several.
    """

    path: Path
    columns: tuple[str, ...]
    cells: dict[str, list[str]]
    lines: list[int]
    numerals: Numerals = field(default_factory=Numerals)
    notes: list[str] = field(default_factory=list)
    cell_lines: dict[str, list[int]] = field(default_factory=dict)
    _parsed: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, rows: Sequence[int]) -> Sheet:
        """The sheet with these rows alone, each still with its line in the file."""
        cells = {name: [texts[row] for row in rows] for name, texts in self.cells.items()}
        lines = [self.lines[row] for row in rows]
        return Sheet(self.path, self.columns, cells, lines, self.numerals, self.notes)

    def renamed(self, column: str, name: str) -> Sheet:
        """The sheet with `column` called `name`."""
        columns = tuple(name if c == column else c for c in self.columns)
        cells = {name if c == column else c: texts for c, texts in self.cells.items()}
        return Sheet(self.path, columns, cells, self.lines, self.numerals, self.notes)

    def where(self, row: int, column: str = "") -> str:
        """`file.csv:line: column` of a cell."""
        head = f"{self.path}:{self.cell_lines.get(column, self.lines)[row]}"
        return f"{head}: {column}" if column else head

    def missing(self, column: str) -> np.ndarray:
        """(n,) whether each cell is empty or marked as missing."""
        return np.array([is_missing(text) for text in self.cells[column]], dtype=bool)

    def is_text(self, column: str) -> bool:
        """Whether the column holds text and not a single number."""
        parsed = self._numbers(column)
        return bool(np.isnan(parsed).all() and not self.missing(column).all())

    def numbers(self, column: str) -> np.ndarray:
        """(n,) the column as numbers, NaN where a cell is missing, infinite where it is `inf`.

        Raises:
            RunsError: a cell is neither a number nor missing, or is ambiguous.
        """
        parsed = self._numbers(column)
        wrong = np.flatnonzero(np.isnan(parsed) & ~self.missing(column))
        if len(wrong):
            raise RunsError(
                f"{self.cells[column][wrong[0]]!r} is not a number",
                where=self.where(int(wrong[0]), column),
                hint="Write a number, or leave the cell empty where nothing was measured",
            )
        unclear = [j for j, t in enumerate(self.cells[column]) if self.numerals.is_unclear(t)]
        if unclear:
            text = self.cells[column][unclear[0]]
            whole, _, rest = text.replace(",", ".").partition(".")
            raise RunsError(
                f"{text!r} may be {whole}{rest} or {whole}.{rest}",
                where=self.where(unclear[0], column),
                hint="Write numbers with a decimal point and without thousands separators",
            )
        signs = ["%" in text for text in self.cells[column]]
        bare = np.flatnonzero(~np.array(signs) & (np.nan_to_num(parsed) != 0))
        if any(signs) and len(bare):
            raise RunsError(
                f"{self.cells[column][bare[0]]!r} has no percent sign, others of the column have",
                where=self.where(int(bare[0]), column),
                hint="Write all cells of the column with a percent sign, or none",
            )
        return parsed

    def counts(self, column: str) -> np.ndarray:
        """(n,) the column as counts above 0, in forms such as 60000000, 60M, 1.5B or 1e9.

        Raises:
            RunsError: a cell is not a count above 0.
        """
        found = np.empty(len(self))
        for row, text in enumerate(self.cells[column]):
            value = parse_count(text)
            if value is None or not value > 0:
                raise RunsError(
                    f"{text!r} is not a count above 0" if text else "the cell is empty",
                    where=self.where(row, column),
                    hint="Write a count such as 60000000, 6e7, 60M or 1.5B in every row",
                )
            found[row] = value
        return found

    def _numbers(self, column: str) -> np.ndarray:
        if column not in self._parsed:
            found = [self.numerals.value(text) for text in self.cells[column]]
            self._parsed[column] = np.array(found, dtype=float)
        return self._parsed[column]


def read_sheet(path: Path) -> Sheet:
    """The CSV file at `path`: comma, semicolon, tab or bar between cells, with or without BOM.

    Raises:
        RunsError: the file cannot be read, holds no rows, names a column twice, or a row has
            another number of cells than the header.
    """
    notes: list[str] = []
    text = _text(path)
    preamble = PREAMBLE.match(text)
    start = preamble.end() if preamble else 0
    declared = preamble[1] if preamble else None
    delimiter = declared or _delimiter(text[start:], path)
    if delimiter != ",":
        notes.append(f"{path.name}: cells are separated by {_delimiter_name(delimiter)}.")
    rows, lines = _rows(text[start:], delimiter, path, text[:start].count("\n"))
    if not rows:
        raise RunsError("is empty", where=str(path), hint="Give a header and a row per run")
    columns = _columns(rows[0], path)
    body: list[list[str]] = []
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(columns) and not any(row[len(columns) :]):
            row = row[: len(columns)]
        if len(row) != len(columns):
            raise RunsError(
                f"{len(row)} cells, the header has {len(columns)}",
                where=f"{path}:{line}",
                hint="Give every row as many cells as the header; quote texts that hold "
                + _delimiter_name(delimiter),
            )
        body.append(row)
    if not body:
        raise RunsError("has a header but no rows", where=str(path), hint="Add a row per run")
    cells = {name: [row[j] for row in body] for j, name in enumerate(columns)}
    unnamed = [name for name in columns[1:] if name.startswith(UNNAMED) and not any(cells[name])]
    columns = [name for name in columns if name not in unnamed]
    numerals = Numerals.of((text for name in columns for text in cells[name]), delimiter)
    if numerals.decimal == ",":
        notes.append(f"{path.name}: numbers are read with a decimal comma.")
    if any("%" in text and PERCENT.fullmatch(text) for name in columns for text in cells[name]):
        notes.append(f"{path.name}: cells with a percent sign are read as hundredths.")
    return Sheet(path, tuple(columns), cells, lines[1:], numerals, notes)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise RunsError(f"cannot be read: {problem.strerror}", where=str(path)) from None
    _refuse_other_formats(data, path)
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise RunsError(
            "is not text in UTF-8", where=str(path), hint="Save the table as CSV in UTF-8"
        ) from None
    if not text.strip():
        raise RunsError("is empty", where=str(path), hint="Give a header and a row per run")
    return text


def _refuse_other_formats(data: bytes, path: Path) -> None:
    start = data.removeprefix(codecs.BOM_UTF8).lstrip()
    for mark, what in OTHER_FORMATS:
        if start.lower().startswith(mark):
            raise RunsError(
                f"is {what}, not CSV", where=str(path), hint="Write or save the table as CSV"
            )


def _delimiter(text: str, path: Path) -> str:
    head = next((line for line in text.splitlines() if line.strip()), "")
    counts = {mark: head.count(mark) for mark in DELIMITERS}
    best = max(DELIMITERS, key=lambda mark: counts[mark])  # the first of equals: the comma
    if not counts[best]:
        raise RunsError(
            f"has the single column {head.strip()!r}",
            where=f"{path}:1",
            hint="Separate cells by commas, and name a column per domain or metric in the header",
        )
    return best


def _rows(text: str, delimiter: str, path: Path, before: int) -> tuple[list[list[str]], list[int]]:
    """The rows that are not empty, and the line of each; `before` lines of the file precede."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows, lines, line = [], [], before + 1
    try:
        for row in reader:
            _refuse_control(row, f"{path}:{line}")
            if any(cell.strip() for cell in row):
                rows.append([unguarded(cell.strip()) for cell in row])
                lines.append(line)
            line = before + reader.line_num + 1
    except csv.Error as problem:
        raise RunsError(
            f"cannot be split into cells: {problem}",
            where=f"{path}:{line}",
            hint="Look for a quote that is not closed on this line",
        ) from None
    return rows, lines


def _refuse_control(row: list[str], where: str) -> None:
    """Refuse control characters: names are printed, and a terminal would obey them."""
    for cell in row:
        if found := CONTROL.search(cell):
            raise RunsError(
                f"holds the control character {found[0]!r} in {cell!r}",
                where=where,
                hint="Remove it",
            )


def _columns(head: list[str], path: Path) -> list[str]:
    names = [name or (UNNAMED if j == 0 else f"{UNNAMED} {j + 1}") for j, name in enumerate(head)]
    for j, name in enumerate(names):
        if name in names[:j]:
            raise RunsError(
                f"columns {names.index(name) + 1} and {j + 1} are both called {name!r}",
                where=f"{path}:1",
                hint="Give the columns different names",
            )
    return names


def _delimiter_name(delimiter: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.get(
        delimiter, repr(delimiter)
    )
