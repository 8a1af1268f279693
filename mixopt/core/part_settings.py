"""Settings of a part (a router, an upcycler) from the values of a file: its dataclass's fields."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from mixopt.core.errors import StudyError

T = TypeVar("T")

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def build_settings(kind: type[T], values: Mapping[str, Any], what: str, where: str) -> T:
    """The part, or its settings, that `values` of a study file give.

    Args:
        kind: a dataclass whose fields all have defaults.
        values: field → value.
        what: is set, for the error (`router`, `upcycler`, …).
        where: key of the file that holds `values`.

    Raises:
        StudyError: a key that there is not, or a value of another type or out of range.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        at = f"{where}.{key}"
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise StudyError(f"this {what} has no such setting", where=at, hint=f"It has: {names}")
        converted[key] = _as(type(fields[key]), value, at)
    return kind(**converted)


def _as(kind: type, value: Any, where: str) -> Any:
    """`value` if it is a `kind`; whole numbers stand for decimal ones, lists for tuples.

    YAML reads 1e-3 as text.
    """
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is tuple and fits:
        fits = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if kind is float and fits:
        fits = math.isfinite(value)
    if not fits:
        expected = TYPE_NAMES.get(kind, "a list of whole numbers")
        raise StudyError(f"must be {expected}, is {value!r}", where=where)
    return value
