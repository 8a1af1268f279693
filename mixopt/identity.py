"""Which study folder this is: an id, written once, that its ledger and its MLflow runs carry.

A folder that was moved keeps its id. A folder that was copied gets a new one, so that the copy and
the original never write into each other's shared ledger or MLflow runs.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt import files
from mixopt.errors import LedgerError

FILE = "identity.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """A study folder's id, and what its trials are trained by."""

    home: Path
    """The study folder."""
    id: str
    """Unlike any other folder's."""
    training: str
    """Hash of the corpus and of all settings that a training depends on."""
    copied_from: str = ""
    """Id of the folder that this one is a copy of; empty if it is none."""


def read(home: Path) -> Identity | None:
    """The identity of the study folder `home`; None if it was never worked on.

    Raises:
        FileError: the file cannot be read, or is not as it was written.
    """
    return _read(home)[0] if (home / FILE).exists() else None


def claim(home: Path, training: str) -> Identity:
    """The identity of `home`, made if there is none, and renewed if the folder is a copy.

    Called by the driver, who holds the folder's lock.

    Raises:
        LedgerError: the folder's trials are trained by another recipe or on another corpus.
        FileError: the identity that is there cannot be read.
    """
    if not (home / FILE).exists():
        return _write(Identity(home, _fresh(), training))
    known, before = _read(home)
    if known.training != training:
        raise LedgerError(
            "the trials of this folder were trained with other settings or on another corpus",
            where=str(home / FILE),
            mend="Put the settings back, or give the study another name",
        )
    if before == home.resolve():
        return known
    if _is_another(before, known):
        return _write(Identity(home, _fresh(), training, copied_from=known.id))
    return _write(known)


def _read(home: Path) -> tuple[Identity, Path]:
    """The identity of `home`, and where the folder was when it was written."""

    def parse(values: Any) -> tuple[Identity, Path]:
        parts = [values[key] for key in ("id", "training", "copied_from")]
        if not all(isinstance(part, str) for part in parts):
            raise TypeError("an id or a hash is no text")
        return Identity(home, *parts), Path(values["path"])

    return files.read_json(
        home / FILE, parse, mend="Restore it from a backup: the ledger knows the folder by this id"
    )


def _is_another(before: Path, known: Identity) -> bool:
    """Whether the folder at `before` is still there with this id, and not this folder itself."""
    original = read(before)
    return original is not None and original.id == known.id and not before.samefile(known.home)


def _write(identity: Identity) -> Identity:
    values = {
        "id": identity.id,
        "path": str(identity.home.resolve()),
        "training": identity.training,
        "copied_from": identity.copied_from,
    }
    files.write_json(identity.home / FILE, values)
    return identity


def _fresh() -> str:
    return uuid.uuid4().hex
