"""Files that are whole or absent: written to a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mixopt.core.errors import FileError

T = TypeVar("T")

FIXES = {
    errno.ENOSPC: "Free space on that disk and run the same command again",
    errno.EDQUOT: "Free space in your quota and run the same command again",
    errno.EROFS: "Make that disk writable, or work in another folder",
    errno.EACCES: "Allow writing there, or work in another folder",
}
ABANDONED_SECONDS = 3600.0  # another host's part of this age: no write takes as long


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    Parts of this file that a killed process left are removed first, so that they take no space.

    Raises:
        FileError: it cannot be written; the file that was there is as it was.
    """
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path`, as by `write_bytes`, where the block ends without an error.

    Raises:
        FileError: it cannot be written; the file that was there is as it was.
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While the block writes `path`, or files below it: an OSError names it, and what to do.

    Raises:
        FileError: for the OSError; of a folder it names the file that the error names.
    """
    try:
        yield
    except OSError as problem:
        raise FileError(
            f"cannot be written: {problem.strerror or problem}",
            where=str((path.is_dir() and problem.filename) or path),
            hint=FIXES.get(problem.errno or 0, "Check that disk and folder"),
        ) from problem


def _remove_abandoned(path: Path) -> None:
    """Remove the parts of `path` whose writer is gone."""
    here = f".{path.name}.{socket.gethostname()}."
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        pid = part.name.removeprefix(here).removesuffix(".part")
        try:
            if part.name.startswith(here) and pid.isdigit():
                gone = not Path("/proc", pid).exists()
            else:
                gone = time.time() - part.stat().st_mtime > ABANDONED_SECONDS
        except FileNotFoundError:
            continue  # its writer has just renamed it
        if gone:
            part.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write `values` as indented JSON, whole or not at all."""
    write_bytes(path, _as_json(values))


def keep_json(path: Path, values: Any) -> None:
    """Have `values` at `path`: written where the file is absent, broken or says something else."""
    keep_bytes(path, _as_json(values))


def keep_bytes(path: Path, data: bytes) -> None:
    """Have `data` at `path`: written where the file is absent or holds something else."""
    try:
        same = path.read_bytes() == data
    except OSError:
        same = False
    if not same:
        write_bytes(path, data)


def read_json(path: Path, parse: Callable[[Any], T], *, hint: str) -> T:
    """What `parse` makes of the JSON at `path`, a file that mixopt wrote.

    Args:
        path: the file.
        parse: takes the values apart; its KeyError, TypeError, ValueError, AttributeError or
            IndexError means that they have another shape.
        hint: what to do about a file that cannot be used.

    Raises:
        FileError: it cannot be read, is cut, or holds what mixopt does not write there.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as problem:
        raise FileError(
            f"cannot be read: {problem.strerror}", where=str(path), hint=hint
        ) from problem
    except ValueError as problem:
        raise FileError(f"is cut or no JSON: {problem}", where=str(path), hint=hint) from problem
    try:
        return parse(values)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise FileError(
            f"holds what mixopt does not write there: {problem!r}", where=str(path), hint=hint
        ) from problem


def an_object(values: Any) -> dict[str, Any]:
    """`values`, if they are a JSON object.

    Raises:
        TypeError: they are none.
    """
    if not isinstance(values, dict):
        raise TypeError("no JSON object")
    return values


def _as_json(values: Any) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
