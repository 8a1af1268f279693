"""Which study folder this is: an id, written once, that its ledger and its MLflow runs carry.

A folder that was moved keeps its id. A folder that was copied gets a new one, so that the copy and
the original never write into each other's shared ledger or MLflow runs. A folder that lost its
identity file takes the id back from the ledger that lies in it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import LedgerError
from mixopt.io import files
from mixopt.io.trial_files import trial_folder
from mixopt.study.storage import BEGIN_ANEW, kept_by_studies

FILE = "identity.json"
LEDGER = "ledger.db"  # the ledger, unless the study file names another storage


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
        LedgerError: the file is missing, and no ledger in the folder knows the id.
        FileError: the file cannot be read, or is not as it was written.
    """
    identity = _known(home)
    if identity is None and has_trials(home):
        raise missing(home)
    return identity


def has_trials(home: Path) -> bool:
    """Whether trials were trained in the study folder `home`."""
    return trial_folder(home, 0).parent.exists()


def missing(home: Path) -> LedgerError:
    """What is wrong with a folder that has trials and no identity file."""
    return LedgerError(
        "this file is missing, by which the ledger knows the folder",
        where=str(home / FILE),
        hint=f"Restore it from a backup; a {LEDGER} in the folder holds the id too. Without "
        f"either, move the ledger away or name a new one: {BEGIN_ANEW}",
    )


def claim(home: Path, training: str) -> Identity:
    """The identity of `home`: renewed if the folder is a copy, a fresh one if there is none.

    Called by the driver, who holds the folder's lock. A fresh identity is not written: the ledger
    is asked first whether it knows the folder by another (`Ledger.open`, which calls `keep`).

    Raises:
        LedgerError: the folder's trials are trained by another recipe or on another corpus.
        FileError: the identity that is there cannot be read.
    """
    if not (home / FILE).exists():
        kept = _from_ledger(home)
        if kept is None:
            return Identity(home, _fresh(), training)
        _check_training(kept, training, home / LEDGER)
        return keep(kept)
    identity, before = _read(home)
    _check_training(identity, training, home / FILE)
    if before == home.resolve():
        return identity
    if _is_another(before, identity):
        return keep(Identity(home, _fresh(), training, copied_from=identity.id))
    return keep(identity)


def is_kept(identity: Identity) -> bool:
    """Whether the folder of `identity` has an identity file."""
    return is_there(identity.home)


def is_there(home: Path) -> bool:
    """Whether `home` has an identity file."""
    return (home / FILE).exists()


def keep(identity: Identity) -> Identity:
    """Write `identity` to its folder, and return it."""
    values = {
        "id": identity.id,
        "path": str(identity.home.resolve()),
        "training": identity.training,
        "copied_from": identity.copied_from,
    }
    files.write_json(identity.home / FILE, values)
    return identity


def _check_training(identity: Identity, training: str, where: Path) -> None:
    if identity.training != training:
        raise LedgerError(
            "the trials of this folder were trained with other settings or on another corpus",
            where=str(where),
            hint="Put the settings back, or give the study another name",
        )


def _known(home: Path) -> Identity | None:
    return _read(home)[0] if (home / FILE).exists() else _from_ledger(home)


def _from_ledger(home: Path) -> Identity | None:
    """The identity by which the ledger in `home` knows its folder; None without such a ledger."""
    bound = [
        Identity(home, kept["folder"], kept["training"])
        for kept in kept_by_studies(home / LEDGER)
        if {"folder", "training"} <= kept.keys()
    ]
    return bound[0] if len(bound) == 1 else None


def _read(home: Path) -> tuple[Identity, Path]:
    """The identity of `home`, and where the folder was when it was written."""

    def parse(values: Any) -> tuple[Identity, Path]:
        parts = [values[key] for key in ("id", "training", "copied_from")]
        if not all(isinstance(part, str) for part in parts):
            raise TypeError("an id or a hash is no text")
        return Identity(home, *parts), Path(values["path"])

    return files.read_json(
        home / FILE, parse, hint="Restore it from a backup: the ledger knows the folder by this id"
    )


def _is_another(before: Path, identity: Identity) -> bool:
    """Whether the folder at `before` is still there with this id, and not this folder itself."""
    original = _known(before)
    return (
        original is not None and original.id == identity.id and not before.samefile(identity.home)
    )


def _fresh() -> str:
    return uuid.uuid4().hex
