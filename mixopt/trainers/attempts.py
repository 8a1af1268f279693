"""What is kept of the attempts in a training's folder: `attempts.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mixopt.core.errors import CheckpointError
from mixopt.io import files

ATTEMPTS = "attempts.json"


@dataclass
class Attempts:
    """The attempts at a training.

    Attributes:
        path: of the file.
        identity: of the training.
        attempts: how many began.
        memory_failures: how many of them ran out of memory.
        seconds: that all of them took.
        refused: whether the last one ended with exit code 0 and its files were refused. A person
            may correct them: they are read again, before anything is trained again.
    """

    path: Path
    identity: str
    attempts: int = 0
    memory_failures: int = 0
    seconds: float = 0.0
    refused: bool = False

    @classmethod
    def read(cls, folder: Path, identity: str) -> Attempts:
        """What earlier attempts left in `folder`.

        Raises:
            CheckpointError: they were at another training.
        """
        path = folder / ATTEMPTS
        if not path.exists():
            return cls(path, identity)
        hint = "Delete the folder, and this training begins anew; or give it a folder of its own"
        kept = files.read_json(path, lambda values: cls(path, **values), hint=hint)
        if kept.identity != identity:
            raise CheckpointError(
                "belongs to other work (its trainer, settings, data, mixture or seed differ)",
                where=str(path),
                hint=hint,
            )
        return kept

    def write(self) -> None:
        """Write it."""
        values = dataclasses.asdict(self)
        del values["path"]
        files.write_json(self.path, values)
