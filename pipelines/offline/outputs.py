"""Check that a command can write its output, before it computes for minutes."""

from __future__ import annotations

import os
from pathlib import Path

from mixopt.core.errors import FileError, RunsError
from mixopt.io import files

FILE, FOLDER = "file", "folder"


def writable(path: Path, kind: str) -> None:
    """Check that the file or folder `path` can be written; creates nothing.

    Args:
        path: where a command will write.
        kind: `FILE` or `FOLDER`.

    Raises:
        RunsError: `path` is of the other kind, or its folder is not writable.
    """
    where = f"--out {path}"
    if path.exists() and path.is_dir() != (kind == FOLDER):
        other = "folder" if kind == FILE else "file"
        raise RunsError(f"is a {other}", where=where, hint=f"Name a {kind}")
    nearest = path if kind == FOLDER else path.parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise RunsError(f"{nearest} is a file", where=where, hint=f"Name another {kind}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunsError(f"{nearest} is not writable", where=where, hint=f"Name another {kind}")


def write(path: Path, data: bytes) -> None:
    """Write the file `path`, whole or not at all.

    Raises:
        RunsError: it cannot be written, such as on a full disk.
    """
    try:
        files.write_bytes(path, data)
    except FileError as problem:
        raise RunsError(problem.what, where=str(path), hint="Name another file") from None
