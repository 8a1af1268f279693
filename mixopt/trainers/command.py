"""A trainer that is a command: `torchrun --nproc-per-node 8 train.py {job}`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.trainers.base import Trainer

JOB_VARIABLE = "MIXOPT_JOB"  # in the environment of every training: the path of its job.json


@dataclass(frozen=True, kw_only=True)
class Command(Trainer):
    """Runs a command in the study file's folder, without a shell.

    >>> trainer = Command(folder=Path("/studies"), command="python train.py {job}")
    >>> trainer.argv(Path("/studies/demo/trials/0000/job.json"))
    ['python', 'train.py', '/studies/demo/trials/0000/job.json']

    Attributes:
        command: with `{job}` for the path of `job.json`, `{folder}` for its folder and `{python}`
            for the Python that mixopt runs by; the first is in the environment as MIXOPT_JOB too.
    """

    command: str

    def __post_init__(self) -> None:
        if not self.words:
            raise StudyError("is empty", where="trainer.command")

    @property
    def words(self) -> list[str]:
        """The command, parted as a shell would.

        Raises:
            StudyError: a quotation has no end.
        """
        if not isinstance(self.command, str):
            raise StudyError(f"must be text, is {self.command!r}", where="trainer.command")
        try:
            return shlex.split(self.command)
        except ValueError as error:
            raise StudyError(
                f"cannot be read: {error}",
                where="trainer.command",
                hint="Close the quotation",
            ) from error

    def argv(self, job_file: Path) -> list[str]:
        """See `Trainer.argv`. Other braces than the two names' stay as they are."""
        values = {
            "{job}": str(job_file),
            "{folder}": str(job_file.parent),
            "{python}": sys.executable,
        }
        return [_filled(word, values) for word in self.words]

    def program(self) -> dict[str, Any]:
        """See `Trainer.program`."""
        return {"command": self.command}

    def own_files(self) -> Iterable[Path]:
        """The command's words that are files below the study file's folder: its script."""
        for word in self.words:
            path = self.folder / word
            if not Path(word).is_absolute() and path.is_file():
                yield path


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
