"""Completion markers: `done.json` holds a folder's results, and which files belong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.errors import FileError
from mixopt.io import files
from mixopt.io.token_losses import TOKENS
from mixopt.io.trial_files import CURVE, MARKER, TRAINED

WEIGHTS, SHAPE, TOKENIZER = "model.safetensors", "model.json", "tokenizer.json"
VOUCHED = (CURVE, WEIGHTS, SHAPE, TOKENIZER, TOKENS)


def write(folder: Path, values: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> None:
    """Mark the work in `folder` complete. Written last: it vouches for the files that are there.

    Args:
        folder: of the work.
        values: its results, JSON-able; `files` is added (name → size in bytes and SHA-256), and
            `sha256`, the marker's own checksum.
        kept: what `files` says; None: what `described` gives.
    """
    files_kept = described(folder) if kept is None else kept
    content = json.loads(json.dumps({**values, "files": files_kept}))
    files.write_json(folder / MARKER, {**content, "sha256": _checksum(content)})


def read(folder: Path) -> dict[str, Any] | None:
    """What the marker of `folder` says.

    None where it does not count, so that the work is done again: there is none, it is not as it
    was written, or a file that it vouches for is absent or differs.
    """
    values = read_alone(folder)
    return values if values is not None and whole(folder, values.get("files")) else None


def read_alone(folder: Path) -> dict[str, Any] | None:
    """As `read`, but the files that it vouches for are not looked at; see `whole`."""
    try:
        values: dict[str, Any] = json.loads((folder / MARKER).read_bytes())
        return values if values.pop("sha256") == _checksum(values) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def described(folder: Path) -> dict[str, Any]:
    """The files in `folder` that a marker vouches for: name → size in bytes and SHA-256."""
    kept = {name: _described(folder / name) for name in VOUCHED if (folder / name).exists()}
    below = sorted((folder / TRAINED).iterdir()) if (folder / TRAINED).is_dir() else []
    return kept | {f"{TRAINED}/{path.name}": _described(path) for path in below if path.is_file()}


def all_described(folder: Path) -> dict[str, Any]:
    """The same of all files right in `folder`."""
    return {path.name: _described(path) for path in sorted(folder.iterdir()) if path.is_file()}


def tree_described(path: Path) -> tuple[Path, dict[str, Any]]:
    """The same of a file, or of all files below a folder: their folder, and names relative to it.

    Raises:
        FileError: one cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        return folder, {p.relative_to(folder).as_posix(): _described(p) for p in found}
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error


def whole(folder: Path, kept: Any) -> bool:
    """Whether all files that `kept`, once given by `described`, names are in `folder` unchanged.

    False where `kept` has another shape.
    """
    try:
        return all(_fits(folder / name, about) for name, about in kept.items())
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _fits(path: Path, about: Mapping[str, Any]) -> bool:
    return path.stat().st_size == about["bytes"] and _described(path) == about


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": checksum}
