"""A trainer of the user's may change until a first training is recorded: scripts have bugs.

The study then goes on with the changed one: its trials stay, attempts at them are set aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mixopt.io.trial_files import MARKER, trial_folder
from mixopt.study import identity
from mixopt.study.data import TrainingData
from mixopt.study.ledger import Ledger
from mixopt.study.locked import LOCKED, changed_settings, differences, lock_anew
from mixopt.study.settings import Study
from mixopt.study.trainings import study_binding

EARLIER = "earlier"  # in a study folder: attempts by trainers that were changed


def take_changed_trainer(study: Study, data: TrainingData) -> str:
    """Bind a study without a recorded training to its trainer as it is now.

    Called by the driver, who holds the folder's lock. Killed at any moment, it is completed by the
    next call. Does nothing where other settings changed too, or a training is recorded: then the
    locked settings are refused.

    Returns:
        What changed, for a person; empty if nothing did.

    Raises:
        LedgerError: the ledger cannot be used.
        FileError: the folder's settings cannot be read.
    """
    home = study.home
    if study.trainer is None or not ((home / LOCKED).exists() and identity.is_there(home)):
        return ""
    changed, known = changed_settings(study, data), identity.read(home)
    assert known is not None  # its file is there
    training = study_binding(study, data)
    if not changed and known.training == training:
        return ""
    if not may_change_yet(study, changed):
        return ""
    owner = identity.claim(home, known.training)  # of a copied folder a new one
    if not Ledger.rebind(study.ledger_url, study.name, owner, training):
        return ""
    aside = _set_aside(home)
    lock_anew(study, data)
    where = f" (attempts so far are in {aside})" if aside else ""
    what = f":{differences(changed)}" if changed else ""
    return (
        f"no training is recorded yet, so the study goes on with the trainer as it is now{where}"
        f"{what}"
    )


def may_change_yet(study: Study, changed: Iterable[str]) -> bool:
    """Whether only the trainer's settings are `changed`, and no training is marked as done."""
    alone = all(key.startswith("trainer.") for key in changed)
    return alone and not any(study.home.glob(f"trials/*/{MARKER}"))


def _set_aside(home: Path) -> Path | None:
    """Move what attempts left in the trials' folders; None if they left nothing."""
    folders = [path for path in sorted(trial_folder(home, 0).parent.glob("*")) if path.is_dir()]
    if not folders:
        return None
    number = 1
    while (home / EARLIER / str(number)).exists():
        number += 1
    aside = home / EARLIER / str(number)
    aside.mkdir(parents=True)
    for path in folders:
        path.rename(aside / path.name)
    return aside
