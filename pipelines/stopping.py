"""Ctrl-C and SIGTERM end a command with one line and the exit code that a shell expects.

The handler raises KeyboardInterrupt for both, the only exception that Ray's calls pass on from a
signal handler. `mixopt.workers.cluster.connect` keeps these handlers: `ray.init` sets its own.
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
    """End the block and the process with one line on Ctrl-C or SIGTERM.

    `finally` blocks run first. An ignored signal stays ignored, as Ctrl-C in a script's background
    jobs.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    handled = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; run the same command again", file=sys.stderr)
        sys.exit(EXIT_CODE + (received or [signal.SIGINT])[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
