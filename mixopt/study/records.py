"""The records in a study folder: locked settings, verdict and promotion.

Only reads. A view of a study must open at any stage of it, also while a record is being written or
after a crash, so a record that is absent, cut or of another version reads as not there yet: the
next selection or promotion writes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mixopt.io.trial_files import read_object
from mixopt.selection.transfer import Transfer
from mixopt.study.results import Promotion, Verdict
from mixopt.study.settings import Study

Record = TypeVar("Record")


def read_settings(home: Path) -> dict[str, Any]:
    """The study's locked settings; empty before its first run."""
    return read_object(home / "study.json")


def read_verdict(home: Path) -> Verdict | None:
    """What the selection decided (`verdict.json`); None before it has."""
    return _read(home / "verdict.json", Verdict.from_json)


def read_transfer(study: Study) -> Transfer | None:
    """What the runs at a larger size showed (`transfer.json`); None before they ended.

    None too where the study asks for none by now, or has another verdict.
    """
    found, verdict = _read(study.home / "transfer.json", Transfer.from_json), None
    if found is not None and study.select.at is not None:
        verdict = read_verdict(study.home)
    return found if found is not None and verdict and verdict.basis == found.verdict else None


def read_promotion(home: Path) -> Promotion | None:
    """What the promotion measured (`promotion/result.json`); None before it ended."""
    return read_result(home / "promotion")


def read_result(folder: Path) -> Promotion | None:
    """The `result.json` of a promotion in `folder`; None where it is not there yet."""
    return _read(folder / "result.json", Promotion.from_json)


def _read(path: Path, parse: Callable[[Mapping[str, Any]], Record]) -> Record | None:
    try:
        return parse(read_object(path))
    except (KeyError, TypeError, ValueError, AttributeError):  # of another shape
        return None
