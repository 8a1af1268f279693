"""Ctrl-C and SIGTERM end a command in one line, with the exit code that a shell expects.

The handler raises KeyboardInterrupt for both: it is the one exception that Ray's calls let through
from a signal handler. `mixopt.workers.cluster.connect` keeps the handlers, for `ray.init` sets
its own.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODE = 128  # and the signal's number: 130 for Ctrl-C, 143 for SIGTERM


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, Ctrl-C and SIGTERM end it, and the process, in one line.

    What stands in `finally` runs first. A signal that is ignored, as Ctrl-C is by what a script
    starts in the background, stays ignored.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    heeded = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; run the same command to go on", file=sys.stderr)
        sys.exit(EXIT_CODE + (received or [signal.SIGINT])[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
