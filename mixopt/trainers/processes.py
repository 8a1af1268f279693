"""All processes below this one, also those that left its session: found, and ended.

On Linux a process can be a *child subreaper* (prctl(2)): whatever its descendants leave behind, a
daemon that forked twice and called setsid too, becomes its child and so can be found in /proc.
Elsewhere psutil tells descendants, if it is installed, and processes that left both their parent
and the command's process group are not found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"


def adopt_orphans() -> None:
    """Become the parent of all orphans below this process. Linux alone can."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the thread that forked this process ends. Linux alone can."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(of: int) -> list[int]:
    """The living processes below process `of`, without it; zombies do not count."""
    if not LINUX:
        return _told_by_psutil(of)
    children: dict[int, list[int]] = {}
    dead = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except OSError:  # it has just ended
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]  # a name may hold blanks and brackets
        children.setdefault(int(parent), []).append(int(entry.name))
        if state in "ZX":
            dead.add(int(entry.name))
    found, waiting = [], [of]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return [pid for pid in found if pid not in dead]


def _told_by_psutil(of: int) -> list[int]:
    try:
        import psutil
    except ImportError:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(of).children(recursive=True)
        return [p.pid for p in below if p.status() != psutil.STATUS_ZOMBIE]
    return []


def reap() -> dict[int, int]:
    """Process id → exit code of the children that ended; of a signal, minus its number."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def end_descendants(grace: float, group: int = 0) -> dict[int, int]:
    """End all processes below this one: SIGTERM, and SIGKILL after `grace` seconds.

    Returns when none is left, however long the kernel takes; the exit codes of own children.

    Args:
        grace: seconds between the signals.
        group: a process group that is signalled too where descendants may not be found.
    """
    ended: dict[int, int] = {}
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while True:
        ended |= reap()
        there = descendants(os.getpid())
        if not there and not _group_lives(group):
            return ended
        kill = time.monotonic() >= deadline
        number = signal.SIGKILL if kill else signal.SIGTERM
        if group and not LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        for pid in there:
            if kill or pid not in asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
                asked.add(pid)
        time.sleep(0.02)


def _group_lives(group: int) -> bool:
    if LINUX or not group:  # on Linux all of it was found
        return False
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
