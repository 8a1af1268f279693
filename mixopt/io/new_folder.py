"""A new folder that is whole or absent, written by one process at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from mixopt.core.errors import FileError
from mixopt.io import files, locks

LOCK = ".lock"


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give the block a folder to fill, which becomes `out` when the block ends.

    The folder is `.NAME.part` beside `out`, on the same disk. It is removed if the block raises. A
    killed process leaves it, and the next one that writes `out` empties it.

    Raises:
        FileError: `out` exists, another process is writing it, or it cannot be written.
    """
    refuse_existing(out)
    part = out.with_name(f".{out.name}.part")
    lock = part / LOCK
    with files.writing(part):
        part.mkdir(parents=True, exist_ok=True)
    hint = "Wait for it to end, or name another folder"
    with locks.hold(lock, str(out), error=FileError, hint=hint):
        try:
            refuse_existing(out)  # another process may have finished it before the lock was ours
            with files.writing(part):
                _empty(part)
            yield part
            with files.writing(out):
                lock.unlink()
                part.rename(out)
                files.sync_folder(out.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def refuse_existing(out: Path) -> None:
    """Refuse a folder or file that is there.

    Raises:
        FileError: `out` exists.
    """
    if out.exists() or out.is_symlink():
        raise FileError(
            "exists already", where=str(out), hint="Name a folder that is not there yet"
        )


def _empty(folder: Path) -> None:
    """Remove all but the lock."""
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
