"""The folder that studies lie in: writable, locked by `flock`, with space, shared by the nodes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mixopt.pipelines.doctor.finding import Finding, Level, Place

CHECK = "storage"
SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "fuse.sshfs", "9p")
LITTLE, TOO_LITTLE = 5e9, 2e8  # bytes free


def check_storage(place: Place) -> Iterator[Finding]:
    """Write and lock a file in the nearest folder that exists, and ask for its free space."""
    folder = place.folder.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    yield from _usable(folder)
    yield _space(folder)
    kind = file_system(folder, Path("/proc/mounts"))
    shared = kind in SHARED
    if shared:
        yield Finding(CHECK, Level.FINE, f"{folder} is on shared storage ({kind})")
        if place.study is not None and place.study.ledger is None:
            yield Finding(
                *(CHECK, Level.NOTE, "the ledger is SQLite on shared storage"),
                fix="Set `ledger: postgresql://…` if other machines write to it as well",
            )
    elif place.study is not None and place.study.ray.address != "local":
        yield Finding(
            *(CHECK, Level.NOTE, f"{folder} is on this machine's own disk ({kind or 'unknown'})"),
            fix="A cluster of several nodes needs a folder that all of them see (docs/cluster.md)",
        )


def _usable(folder: Path) -> Iterator[Finding]:
    """Whether files in `folder` can be written, renamed and locked."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mixopt-doctor-") as file:
            yield _locks(Path(file.name))
    except OSError as error:
        fix = "Allow writing there, or work in another folder"
        text = f"{folder} cannot be written: {error.strerror}"
        yield Finding(CHECK, Level.BROKEN, text, fix)


def _locks(path: Path) -> Finding:
    """Whether a second lock on the file at `path` is refused, as it has to be."""
    with path.open("a") as one, path.open("a") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding(CHECK, Level.FINE, f"{path.parent} can be written, and `flock` holds")
        except OSError as error:
            what = f"refuses `flock` ({errno.errorcode.get(error.errno or 0, error.strerror)})"
        else:
            what = "gives one lock twice: `flock` does nothing there"
    fix = "Mount it with locks (NFS 4, Lustre with `-o flock`), or work on another disk"
    return Finding(CHECK, Level.BROKEN, f"the file system of {path.parent} {what}", fix)


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:,.1f} GB free for {folder}"
    if free < TOO_LITTLE:
        return Finding(CHECK, Level.BROKEN, text, "Free space, or work on another disk")
    if free < LITTLE:
        return Finding(
            CHECK, Level.NOTE, text, "A promoted model and its checkpoints may need more"
        )
    return Finding(CHECK, Level.FINE, text)


def file_system(folder: Path, mounts: Path) -> str:
    """The type of the file system that `folder` is on, by the table `mounts`; empty if unknown."""
    found, longest = "", -1
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    resolved = os.path.realpath(folder)
    for line in lines:
        _, at, kind, *_ = [*line.split(), "", "", ""]
        inside = resolved == at or resolved.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= longest:
            found, longest = kind, len(at)
    return found
