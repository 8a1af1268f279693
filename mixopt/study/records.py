"""What a study folder tells besides the ledger: locked settings, verdict and promotion.

Reading only, and forgiving: a view of a study must open at any stage of it, also while a trial is
being written or after a crash. What is absent or half-written reads as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.io.trial_files import read_object

Kind = type | tuple[type, ...]
VERDICT: dict[str, Kind] = {"promoted": str, "mixture": dict, "candidates": list}
PROMOTION: dict[str, Kind] = {
    "method": str,
    "model": str,
    "mixture": dict,
    "stages": list,
    "before": dict,
    "after": dict,
    "tokens": int,
    "device_seconds": (int, float),
    "model_params": int,
    "active_params": int,
}


def read_settings(home: Path) -> dict[str, Any]:
    """The study's locked settings; empty before its first run."""
    return read_object(home / "study.json")


def read_verdict(home: Path) -> dict[str, Any]:
    """What the selection decided (`verdict.json`); empty before it has.

    One that is cut or of another shape reads as empty too: it follows from the ledger, and the
    next selection writes it again.
    """
    verdict = read_object(home / "verdict.json")
    return (
        verdict if _has(verdict, VERDICT) and all(map(_is_candidate, verdict["candidates"])) else {}
    )


def read_promotion(home: Path) -> dict[str, Any]:
    """What the promotion measured (`promotion/result.json`); empty before it ended, or cut."""
    return read_result(home / "promotion")


def read_result(folder: Path) -> dict[str, Any]:
    """The `result.json` of a promotion in `folder`.

    Empty where it is absent, cut or of another shape: it follows from the stages' markers, and the
    next promotion writes it again.
    """
    result = read_object(folder / "result.json")
    return result if _has(result, PROMOTION) else {}


def _has(values: Mapping[str, Any], shape: Mapping[str, Kind]) -> bool:
    return all(isinstance(values.get(key), kind) for key, kind in shape.items())


def _is_candidate(values: Any) -> bool:
    return isinstance(values, dict) and _has(values, {"name": str, "mixture": dict})
