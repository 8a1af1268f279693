"""Locks that die with their holder: advisory `flock` on a file that says who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mixopt.core.errors import LedgerError, MixoptError
from mixopt.io.files import FIXES


@contextlib.contextmanager
def hold(
    path: Path,
    what: str,
    *,
    patience: float = 0.0,
    error: type[MixoptError] = LedgerError,
    hint: str = "Wait for it to end, or stop it; two at once would train things twice",
) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; the kernel frees it if we are killed.

    Args:
        path: the lock file, made if absent and left behind.
        what: what is held, for the error (`study demo`, `trial 12`).
        patience: seconds to wait for another holder to let go.
        error: what is raised.
        hint: what the error advises.

    Raises:
        LedgerError: (or `error`) another process holds it, named with host and since when; or the
            file cannot be written; or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as problem:
        raise error(
            f"cannot be written: {problem.strerror}",
            where=str(path),
            hint=FIXES.get(problem.errno or 0, "Check that disk and folder"),
        ) from None
    with file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise error(
                        f"{what} is held by {holder(path)}", where=str(path), hint=hint
                    ) from None
                time.sleep(0.2)
            except OSError as problem:  # ENOTSUP, ENOLCK: network file systems without locks
                raise error(
                    f"{what} cannot be locked: this file system refuses `flock` "
                    f"({problem.strerror})",
                    where=str(path),
                    hint="Keep this folder on a local disk, or on storage that is mounted with "
                    "locks (NFS 4, Lustre with `-o flock`)",
                ) from None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()
        yield


def holder(path: Path) -> str:
    """Who wrote the lock file at `path`, as a phrase."""
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError, OSError):  # being written just now, or not by us
        return "another process"


def held_by(path: Path) -> str | None:
    """The holder of the lock at `path`, read without taking it; None if nobody holds it."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        return holder(path)
    except OSError:
        return None
