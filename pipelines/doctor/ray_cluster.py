"""Ray: the cluster that the study names, its token, and where Ray keeps its sockets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.pipelines.doctor.finding import Finding, Level, Place

CHECK = "ray"
LONGEST_SOCKET = 107  # bytes of a Unix socket's path on Linux
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12"
OBJECT_STORE = 128 * 1024**2  # bytes that a Ray of ours takes of shared memory


def check_ray(place: Place) -> Iterator[Finding]:
    """Ask the cluster for an answer, and look at what a Ray on this machine needs."""
    address = "local" if place.study is None else place.study.ray.address
    if address == "local":
        yield Finding(CHECK, Level.FINE, "a Ray is started on this machine (ray.address: local)")
    else:
        yield from _cluster(address)
    yield from _sockets(os.environ.get("RAY_TMPDIR") or "/tmp")
    yield from _shared_memory(Path("/dev/shm"))


def _cluster(address: str | None) -> Iterator[Finding]:
    from mixopt.workers.cluster import check_address

    try:
        check_address(address)
    except StudyError as error:
        yield Finding(CHECK, Level.BROKEN, f"{error.where}: {error.what}", error.hint)
        return
    yield Finding(CHECK, Level.FINE, f"something answers at {address or 'the address Ray takes'}")
    yield from token(os.environ, Path.home())


def token(environment: os._Environ[str] | dict[str, str], home: Path) -> Iterator[Finding]:
    """Whether this machine has a token for clusters that ask for one."""
    kept = home / ".ray" / "auth_token"
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    if environment.get("RAY_AUTH_MODE") != "token":
        yield Finding(
            *(CHECK, Level.NOTE, "RAY_AUTH_MODE is not `token`"),
            fix="Set RAY_AUTH_MODE=token if the cluster asks for one (docs/cluster.md)",
        )
    elif environment.get("RAY_AUTH_TOKEN") or (named and Path(named).is_file()) or kept.is_file():
        yield Finding(CHECK, Level.FINE, "this machine has a token for the cluster")
    else:
        yield Finding(
            *(CHECK, Level.BROKEN, "RAY_AUTH_MODE is `token`, and this machine has none"),
            fix=f"Set RAY_AUTH_TOKEN, or put the cluster's token into {kept}",
        )


def _sockets(folder: str) -> Iterator[Finding]:
    length = len(f"{folder}{SOCKET}".encode())
    if length > LONGEST_SOCKET:
        yield Finding(
            *(CHECK, Level.BROKEN, f"RAY_TMPDIR is too long for Ray's sockets: {folder}"),
            fix=f"Name a folder of at most {LONGEST_SOCKET - len(SOCKET)} bytes, such as /tmp",
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        fix = "Set RAY_TMPDIR to a folder that may be written"
        yield Finding(CHECK, Level.BROKEN, f"Ray cannot write to {folder}", fix)


def _shared_memory(folder: Path) -> Iterator[Finding]:
    if folder.is_dir() and shutil.disk_usage(folder).total < OBJECT_STORE:
        yield Finding(
            *(CHECK, Level.NOTE, f"{folder} is smaller than Ray's object store of 128 MiB"),
            fix="In a container give --shm-size=1g; Ray takes slower files otherwise",
        )
