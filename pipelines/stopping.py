"""Ctrl-C and SIGTERM: answered at once, and the exit code that a shell expects.

The handler raises KeyboardInterrupt for both, the only exception that Ray's calls pass on from a
signal handler. `mixopt.workers.cluster.connect` keeps these handlers: `ray.init` sets its own.

Python calls a handler once native code returns, which may be minutes later while a surrogate is
fitted. So the answer is not the handler's: the interpreter writes the signal's number to a pipe
at once (`signal.set_wakeup_fd`), and a thread that reads it prints the line. That thread also sends
the signal once more where no handler was called yet: one that came a moment before the main thread
waits, as for a key, does not end the waiting.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODE = 128  # and the signal's number: 130 for Ctrl-C, 143 for SIGTERM
STOPPING = "stopping; once more ends at once"
AGAIN = 0.5  # seconds that a signal waits for its handler before it is sent once more
DURABLE = ("run", "search", "select", "promote", "demo", "ask", "sync", "corpus")
KEPT = "what has ended is kept, and of each training its last checkpoint"


@contextlib.contextmanager
def stoppable(words: Sequence[str] = ()) -> Iterator[None]:
    """End the block and the process with a line on Ctrl-C or SIGTERM; the second ends it at once.

    `finally` blocks run first, after a first signal. An ignored signal stays ignored, as Ctrl-C in
    a script's background jobs.

    Args:
        words: the command line after `mixopt`, which is what goes on.
    """
    received: list[int] = []
    heard = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        heard.set()
        received.append(number)
        if len(received) == 1:  # the second one ends the process, unless it is the thread's own
            raise KeyboardInterrupt

    handled = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        with _answering(heard):
            yield
    except KeyboardInterrupt:
        print(f"stopped: {_goes_on(words)}", file=sys.stderr)
        sys.exit(EXIT_CODE + (received or [signal.SIGINT])[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _goes_on(words: Sequence[str]) -> str:
    """What is left of a stopped command, and how to go on."""
    if not words:
        return "run the same command again"
    again = f"`{shlex.join(['mixopt', *words])}`"
    return f"{KEPT}; {again} goes on" if words[0] in DURABLE else f"{again} begins again"


@contextlib.contextmanager
def _answering(heard: threading.Event) -> Iterator[None]:
    """Print a line the moment that a signal arrives; end the process at the second one.

    Args:
        heard: set by the handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_answer, args=(reader, threading.get_ident(), heard), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread, which closes the other end
        thread.join(timeout=1.0)  # its line comes before the last one


def _answer(reader: int, main: int, heard: threading.Event) -> None:
    with open(reader, "rb", buffering=0) as pipe:
        arrived = (number for [number] in iter(lambda: pipe.read(1), b"") if number in SIGNALS)
        if not (first := next(arrived, None)):
            return
        print(f"\n{STOPPING}", file=sys.stderr, flush=True)
        if not heard.wait(AGAIN):
            signal.pthread_kill(main, first)
            next(arrived, None)  # this one
        if second := next(arrived, None):
            os._exit(EXIT_CODE + second)
