"""Which study folder this is: an id, written once, that its ledger and its MLflow runs carry.

A folder that was moved keeps its id. A folder that was copied gets a new one, so that the copy and
the original never write into each other's shared ledger or MLflow runs.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

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
    """The identity of the study folder `home`; None if it was never worked on."""
    path = home / FILE
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    return Identity(home, values["id"], values["training"], values["copied_from"])


def claim(home: Path, training: str) -> Identity:
    """The identity of `home`, made if there is none, and renewed if the folder is a copy.

    Called by the driver, who holds the folder's lock.

    Raises:
        LedgerError: the folder's trials are trained by another recipe or on another corpus.
    """
    known = read(home)
    if known is None:
        return _write(Identity(home, _fresh(), training))
    if known.training != training:
        raise LedgerError(
            "the trials of this folder were trained with other settings or on another corpus",
            where=str(home / FILE),
            mend="Put the settings back, or give the study another name",
        )
    before = Path(json.loads((home / FILE).read_text())["path"])
    if before == home.resolve():
        return known
    if _is_another(before, known):
        return _write(Identity(home, _fresh(), training, copied_from=known.id))
    return _write(known)


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
