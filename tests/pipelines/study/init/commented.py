"""The alternatives in the comments of a study file, each in the place of what it replaces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALTERNATIVE = re.compile(r"^( *)# ((?:'[^']+'|[\w./-]+): \S.*)$")


def alternatives(text: str) -> Iterator[tuple[str, str]]:
    """Every commented-out line `key: value` of a study file, and the file that has it."""
    lines = text.splitlines()
    for number, row in enumerate(lines):
        if found := ALTERNATIVE.match(row):
            indent, instead = found.groups()
            yield instead, "\n".join(_replaced(lines, number, indent, indent + instead)) + "\n"


def _replaced(lines: list[str], number: int, indent: str, instead: str) -> list[str]:
    """`lines` with `instead` at `number`, without the row of its key and what belongs to that."""
    key = instead.split(":")[0]
    first, last = _block(lines, number, len(indent))
    kept, inside = [], False
    for at, row in enumerate(lines):
        if at == number:
            kept.append(instead)
            continue
        if inside and (not row.strip() or _indent(row) <= len(indent)):
            inside = False
        if first <= at < last and row.split(":")[0] == key:
            inside = True
        if not inside:
            kept.append(row)
    return kept


def _block(lines: list[str], number: int, indent: int) -> tuple[int, int]:
    """First and last + 1 of the lines around `number` that are indented by `indent` or more."""

    def belongs(at: int) -> bool:
        return not lines[at].strip() or _indent(lines[at]) >= indent

    first, last = number, number
    while first > 0 and belongs(first - 1):
        first -= 1
    while last < len(lines) and belongs(last):
        last += 1
    return first, last


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip(" "))


def leaves(values: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested dictionaries, dotted, with its value."""
    if not isinstance(values, dict) or not values:
        yield at.removeprefix("."), values
        return
    for key, value in values.items():
        yield from leaves(value, f"{at}.{key}")


def at(values: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        values = values[part]
    return values


def write(path: Path, text: str) -> Path:
    """`text` in the file at `path`, which is returned."""
    path.write_text(text)
    return path
