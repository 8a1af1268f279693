"""`mixopt` on a terminal of its own: what is typed there, and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

from tests.pipelines.whole_study import PATIENCE, environment


class Terminal:
    """`mixopt` with `words`, in `folder`, on a terminal of `rows` and `columns`.

    `shown` is all that it has printed so far, escape sequences included.
    """

    def __init__(self, folder: Path, *words: str | Path, rows: int = 40, columns: int = 100):
        self.shown = ""
        self.process, self.screen = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.chdir(folder)
            inherited = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES")}
            command = (sys.executable, "-m", "mixopt", *map(str, words))
            os.execve(sys.executable, command, inherited | {"TERM": "xterm-256color"})

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.screen)

    def wait_for(self, text: str) -> None:
        """Return once `text` was printed, after what was looked for before."""
        end, since = time.monotonic() + PATIENCE, len(self.shown)
        while text not in self.shown[since:]:
            assert self._read(end), self.shown

    def type(self, text: str) -> None:
        """Type `text`; `\\x03` is Ctrl-C."""
        os.write(self.screen, text.encode())

    def ended(self) -> int:
        """The exit code, once the process has ended."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        assert time.monotonic() < end, self.shown
        _, status = os.waitpid(self.process, 0)
        self.process = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, end: float) -> bool:
        """Take in what was printed; False once the process has ended, or at the time `end`."""
        while time.monotonic() < end:
            if select.select([self.screen], [], [], 0.5)[0]:
                try:
                    read = os.read(self.screen, 1 << 16)
                except OSError:  # Linux' way to say that the other end is closed
                    return False
                self.shown += read.decode(errors="replace")
                return bool(read)
        return False
