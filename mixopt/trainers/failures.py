"""Why a training by a trainer failed: its exit code, its output, its files."""

from __future__ import annotations

import signal
from pathlib import Path

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Failure

# sysexits.h, which shells and schedulers share
BAD_DATA_CODE = 65  # EX_DATAERR
LOST_CODE = 75  # EX_TEMPFAIL: preempted, a node that is going down
KILLED = (signal.SIGKILL, signal.SIGTERM)
SHELL_SIGNAL = 128  # a shell, and Docker, tell a signal's number as an exit code above this
MEMORY_WORDS = (
    "out of memory",
    "outofmemoryerror",
    "memoryerror",
    "can't allocate memory",
    "cannot allocate memory",
    "std::bad_alloc",
)
LAST_LINES = 20
LAST_BYTES = 16_384


class TrainerError(TrainingError):
    """An attempt of a trainer failed, by one of the classes that are not a result.

    Args:
        failure: its class, which has its policy in `mixopt.workers.driver`.
        what: see `mixopt.core.errors.MixoptError`.
        where: see there.
        hint: see there.
    """

    def __init__(self, failure: Failure, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.failure, self.what, self.where, self.hint))


def _rebuild(failure: Failure, what: str, where: str, hint: str) -> TrainerError:
    return TrainerError(failure, what, where=where, hint=hint)


def broken(what: str, where: str, hint: str) -> TrainerError:
    """The error for a file of a trainer that is not as the contract says."""
    return TrainerError(Failure.BROKEN_CONTRACT, what, where=where, hint=hint)


def failure_of(code: int, output: str) -> Failure:
    """The class of an attempt that ended with `code` (of a signal, minus its number), not with 0.

    >>> failure_of(1, "RuntimeError: CUDA error: out of memory")
    <Failure.OUT_OF_MEMORY: 'out_of_memory'>
    >>> failure_of(-9, "")
    <Failure.WORKER_LOST: 'worker_lost'>

    Args:
        code: exit code of the command.
        output: its last lines.
    """
    if code == LOST_CODE:
        return Failure.WORKER_LOST
    if code == BAD_DATA_CODE:
        return Failure.BAD_DATA
    if any(words in output.lower() for words in MEMORY_WORDS):
        return Failure.OUT_OF_MEMORY
    if -code in KILLED or code - SHELL_SIGNAL in KILLED:
        return Failure.WORKER_LOST
    return Failure.CRASHED


def ending(code: int) -> str:
    """How a command ended, as a phrase.

    >>> ending(3), ending(-11)
    ('it ended with exit code 3', 'it was ended by SIGSEGV')
    """
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def last_lines(path: Path) -> str:
    """The end of a trainer's output; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-LAST_LINES:])
