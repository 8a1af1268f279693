"""What is measured on the cluster once per study and kept in its folder: precision, cohort size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from mixopt.io import files

PRECISION, COHORT = "precision.json", "cohort.json"  # in a study folder
Purpose = Literal["proxy", "promote"]
Precision = Literal["auto", "fp32", "bf16"]
T = TypeVar("T")


def precision(home: Path, purpose: Purpose, measure: Callable[[], Precision]) -> Precision:
    """The precision of the study's proxies or of its promotion; measured the first time.

    Raises:
        FileError: the folder's record cannot be read.
    """
    path = home / PRECISION
    by_purpose = _read(path, _precisions) if path.exists() else {}
    if purpose not in by_purpose:
        by_purpose[purpose] = measure()
        files.write_json(path, by_purpose)
    return by_purpose[purpose]


def cohort_size(home: Path, measure: Callable[[], int]) -> int:
    """How many of the study's trials train fastest as one; measured the first time.

    Raises:
        FileError: the folder's record cannot be read.
    """
    path = home / COHORT
    if not path.exists():
        files.write_json(path, {"proxies": measure()})
    return _read(path, _cohort_size)


def has_cohort_size(home: Path) -> bool:
    """Whether the cohort size has been measured."""
    return (home / COHORT).exists()


def _read(path: Path, parse: Callable[[Any], T]) -> T:
    return files.read_json(path, parse, hint="Delete it to have it measured again")


def _precisions(values: Any) -> dict[str, Precision]:
    if not set(values.values()) <= {"fp32", "bf16"}:
        raise ValueError("a precision that is neither fp32 nor bf16")
    return dict(values)


def _cohort_size(values: Any) -> int:
    size = int(values["proxies"])
    if size < 1:
        raise ValueError(f"a cohort of {size}")
    return size
