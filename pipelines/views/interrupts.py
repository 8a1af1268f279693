"""Ctrl-C that waits while something is drawn.

A frame that is cut in two stays in the console's buffer, and would be written once more.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While open, Ctrl-C is answered at once, but for blocks that are `held`, which end first.

    In another than the main thread, which gets no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._holds = self._pressed = False
        self._before: Callable[[int, FrameType | None], Any] | None = None

    def __enter__(self) -> Interrupts:
        before = signal.getsignal(signal.SIGINT)
        if callable(before) and threading.current_thread() is threading.main_thread():
            self._before = before
            signal.signal(signal.SIGINT, self._asked)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the block end before Ctrl-C is answered.

        Raises:
            KeyboardInterrupt: it was pressed meanwhile; the handler from before raises it.
        """
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
            if self._pressed and self._before is not None:
                self._pressed = False
                self._before(signal.SIGINT, None)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._pressed = True
        elif self._before is not None:
            self._before(number, frame)
