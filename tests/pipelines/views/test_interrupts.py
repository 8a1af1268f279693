"""Ctrl-C is answered at once, but for what is being drawn."""

from __future__ import annotations

import signal
import threading

import pytest

from mixopt.pipelines.views.interrupts import Interrupts


def test_what_is_held_ends_before_ctrl_c_is_answered() -> None:
    done: list[str] = []

    def press(ctrl_c: Interrupts) -> None:
        with ctrl_c.held():
            signal.raise_signal(signal.SIGINT)
            done.append("drawn")
        done.append("never")

    with Interrupts() as ctrl_c:
        with pytest.raises(KeyboardInterrupt):
            press(ctrl_c)
        with ctrl_c.held():  # nothing was pressed since
            done.append("again")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert done == ["drawn", "again"]


def test_the_handler_from_before_is_there_again_and_was_called_meanwhile() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: called.append(number))
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [signal.SIGINT] * 2


def test_another_thread_changes_no_handler() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interrupts() as ctrl_c, ctrl_c.held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
