"""Completion markers: `done.json` says what a folder's work found, and which files belong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt import files
from mixopt.records import CURVE, MARKER
from mixopt.token_losses import TOKENS

WEIGHTS, SHAPE = "model.safetensors", "model.json"
VOUCHED = (CURVE, WEIGHTS, SHAPE, TOKENS)


def write(folder: Path, values: Mapping[str, Any]) -> None:
    """Mark the work in `folder` complete. Written last: it vouches for the files that are there.

    Args:
        folder: of the work.
        values: what it found, JSON-able; `files` is added: name → size in bytes and SHA-256.
    """
    there = {name: _described(folder / name) for name in VOUCHED if (folder / name).exists()}
    files.write_json(folder / MARKER, {**values, "files": there})


def read(folder: Path) -> dict[str, Any] | None:
    """What the marker of `folder` says.

    None where it does not count, so that the work is done again: there is none, it cannot be read,
    or a file that it vouches for is absent or differs.
    """
    try:
        values = json.loads((folder / MARKER).read_text())
        kept = values["files"].items()
        whole = all(_fits(folder / name, about) for name, about in kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return values if whole else None


def _fits(path: Path, about: Mapping[str, Any]) -> bool:
    return path.stat().st_size == about["bytes"] and _described(path) == about


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": checksum}
