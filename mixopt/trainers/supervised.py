"""A command that runs under `mixopt.trainers.supervisor`: listened to, and ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from mixopt.core.trials import Failure
from mixopt.trainers.failures import TrainerError
from mixopt.trainers.supervisor import MARGIN_SECONDS

LOOK_SECONDS = 0.1  # between looks at progress.jsonl
END_SECONDS = 60.0  # that ending all processes may take beyond the grace: disks that hang


class Supervised:
    """The supervisor's process, and what it says of the command."""

    def __init__(self, process: subprocess.Popen[bytes], grace: float) -> None:
        self.process, self.grace = process, grace
        self.said = b""
        self.gone = False

    @property
    def starting(self) -> bool:
        """Whether the command has not begun."""
        return not self.said

    @property
    def ended(self) -> bool:
        """Whether the command has ended, by itself or not."""
        return "code" in self.last

    @property
    def last(self) -> dict[str, Any]:
        """How it ended."""
        lines = self.said.splitlines()
        values: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return values

    def looks(self) -> Iterator[None]:
        """Every `LOOK_SECONDS`, until all processes are gone."""
        while not self._hear(LOOK_SECONDS):
            yield

    def _hear(self, seconds: float) -> bool:
        """Listen for `seconds` at most; whether all processes are gone."""
        assert self.process.stdout is not None
        waiting = select.poll()  # select() takes no file numbers above 1,023
        waiting.register(self.process.stdout, select.POLLIN)
        if waiting.poll(1000 * seconds):
            heard = os.read(self.process.stdout.fileno(), 65536)
            self.said += heard
            self.gone = not heard  # both supervisors have ended, and they are the last to go
        return self.gone

    def end(self) -> None:
        """End all processes, if they are not gone.

        Raises:
            TrainerError: one cannot be killed; the lock is held until it goes.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.gone:
            self.process.terminate()
            until = time.monotonic() + self.grace + MARGIN_SECONDS + END_SECONDS
            while not self._hear(LOOK_SECONDS) and time.monotonic() < until:
                pass
        self.process.stdin.close()
        self.process.stdout.close()
        if not self.gone:
            raise TrainerError(Failure.WORKER_LOST, "a process of the training cannot be killed")
        self.process.wait()
