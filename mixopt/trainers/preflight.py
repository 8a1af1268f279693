"""Whether a trainer could be started here: looked at, never run on a job."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.trainers.base import Trainer
from mixopt.trainers.command import Command
from mixopt.trainers.function import Function

SCRIPTS = (".py", ".sh")  # words of a command that end so are files, which must be there
IMPORT_SECONDS = 120.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        fine: whether it is as it should be, on this machine.
        text: a sentence about it.
    """

    fine: bool
    text: str


def look_at(trainer: Trainer) -> list[Finding]:
    """The executable, the files and the function of `trainer`.

    What is missing here may be there on the nodes of a cluster; files must be here too.

    Raises:
        StudyError: a file that the trainer depends on is not there.
    """
    found: list[Finding] = []
    if isinstance(trainer, Command):
        _require_scripts(trainer)
        found.append(_executable(trainer))
    names = list(trainer.identity()["files"])
    if names:
        is_are = "is" if len(names) == 1 else "are"
        found.append(Finding(True, f"{', '.join(names)} {is_are} there"))
    if isinstance(trainer, Function):
        found.append(_imports(trainer))
    return found


def _executable(trainer: Command) -> Finding:
    word = trainer.words[0].replace("{python}", sys.executable)
    beside = trainer.folder / word if "/" in word else None
    path = shutil.which(str(beside or word))
    if path is None:
        return Finding(False, f"there is no executable {word!r} on this machine")
    return Finding(True, f"{trainer.words[0]} is {path}")


def _require_scripts(trainer: Command) -> None:
    """Refuse a command that names a script which is not there.

    Raises:
        StudyError: naming it.
    """
    for word in trainer.words:
        if Path(word).suffix in SCRIPTS and "{" not in word and not word.startswith("-"):
            path = trainer.folder / word
            if not path.is_file() and shutil.which(word) is None:
                raise StudyError(
                    f"there is no file {word!r}",
                    where=f"trainer.command: {path}",
                    hint="The command runs in the study file's folder; paths begin there",
                )


def _imports(trainer: Function) -> Finding:
    """Whether the function is there once its module is imported, in a process of its own."""
    name = trainer.function
    check = [sys.executable, "-P", "-m", "mixopt.trainers.call", "--check", name]
    try:
        done = subprocess.run(
            check, cwd=trainer.folder, capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Finding(False, f"{name} took longer than {IMPORT_SECONDS:g} s to import")
    if done.returncode == 0:
        return Finding(True, f"{name} imports")
    lines = done.stderr.strip().splitlines()
    why = lines[-1] if lines else f"exit code {done.returncode}"
    return Finding(False, f"{name} does not import on this machine: {why}")
