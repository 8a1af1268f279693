"""Runs a command so that nothing of it outlives it, nor the process that asked for it.

    python -m mixopt.trainers.supervisor --folder F --grace 10 --patience 120 -- command …

Two processes watch. The inner one starts the command in a session of its own and ends all its
descendants once it has ended, or on SIGTERM, or when one of those it works for is gone. The outer
one does the same with the inner one, so that either may be killed: Ray kills the direct children of
a worker that it cancels. Both hold the lock in the folder: an attempt elsewhere waits until the
last process is gone.

Output of the command goes to standard error. On standard output are lines of JSON: `{"started": …}`
with its process id, and `{"code": …}` once it has ended, with the number of processes it `left`; or
`{"held": …}` if the lock did not come free; or `{"cannot_start": …}`. Standard input ends with the
process that asked.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mixopt.core.errors import MixoptError
from mixopt.io import locks
from mixopt.trainers import processes

LOCK = "trainer.lock"
LOOK_SECONDS = 0.5  # between looks at what no signal tells: whether the parent is still there
MARGIN_SECONDS = 5.0  # that the inner process has beyond the grace of the command
SETTLE_SECONDS = 0.5  # that what a command leaves has to end by itself: Python's resource tracker


class _Watch:
    """Waits for a child to end, or for a reason to stop."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.asked = False
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.woken = reading
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self.asked = True

    def code(self, child: int, patience: Callable[[], float] | None = None) -> int | None:
        """The exit code of `child`; None if it has not ended and there is a reason to stop.

        Args:
            child: its process id.
            patience: tells the seconds left to wait, whatever reason there is to stop.
        """
        while True:
            ended = processes.reap()
            if child in ended:
                return ended[child]
            left = LOOK_SECONDS if patience is None else patience()
            if left <= 0 or (patience is None and self.should_stop()):
                return None
            watched = [self.woken] if patience is not None else [self.woken, sys.stdin]
            ready, _, _ = select.select(watched, [], [], min(left, LOOK_SECONDS))
            if self.woken in ready:
                os.read(self.woken, 512)

    def should_stop(self) -> bool:
        """Whether a signal asked for it, or one of the processes it works for is gone."""
        # nobody writes to standard input: it is readable once the process that asked is gone
        gone = bool(select.select([sys.stdin], [], [], 0)[0])
        return gone or self.asked or os.getppid() != self.parent


def _inner(command: list[str], grace: float, outer: int, before: _Watch) -> None:
    """Run `command`, say how it ended, and end what it left."""
    watch = _Watch(outer)
    watch.asked |= before.asked  # by a signal since the fork
    processes.adopt_orphans()
    if watch.should_stop():
        return
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=processes.die_with_parent,
        )
    except OSError as error:
        _say({"cannot_start": f"{command[0]}: {error.strerror}"})
        return
    _say({"started": process.pid})
    code = watch.code(process.pid)
    if code is None:
        process.returncode = processes.end_descendants(grace, process.pid).get(process.pid, 0)
        _say({"code": process.returncode, "left": 0})
        return
    process.returncode = code  # it was reaped here, not by Popen
    _say({"code": code, "left": len(_settled())})
    processes.end_descendants(grace, process.pid)


def _settled() -> list[int]:
    """The processes that a command left and that do not end by themselves at once."""
    until = time.monotonic() + SETTLE_SECONDS
    while (left := processes.descendants(os.getpid())) and time.monotonic() < until:
        processes.reap()
        time.sleep(0.02)
    return left


def _outer(command: list[str], grace: float, parent: int) -> None:
    """Run `_inner` in a process of its own, and end what it left, should it be killed."""
    watch, me = _Watch(parent), os.getpid()
    processes.adopt_orphans()
    inner = os.fork()
    if inner == 0:
        try:
            _inner(command, grace, me, watch)
        except BaseException:  # told in the log; without a `code` the attempt is lost, not ended
            traceback.print_exc()
        finally:
            os._exit(0)
    if watch.code(inner) is None:
        os.kill(inner, signal.SIGTERM)
        until = time.monotonic() + grace + MARGIN_SECONDS
        watch.code(inner, lambda: until - time.monotonic())
    processes.end_descendants(0.0)


def _say(values: dict[str, object]) -> None:
    os.write(sys.stdout.fileno(), (json.dumps(values) + "\n").encode())


def main(arguments: list[str]) -> None:
    """Do what the module says."""
    mark = arguments.index("--")
    parser = argparse.ArgumentParser(prog="mixopt.trainers.supervisor")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--patience", type=float, required=True)
    given, command = parser.parse_args(arguments[:mark]), arguments[mark + 1 :]
    parent = os.getppid()
    try:
        with locks.hold(given.folder / LOCK, "this training", patience=given.patience):
            _outer(command, given.grace, parent)
    except MixoptError as error:
        _say({"held": str(error)})


if __name__ == "__main__":
    main(sys.argv[1:])
