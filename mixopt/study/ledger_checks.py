"""Which ledger may be opened, and what is said of one that may not.

A ledger is bound to one study folder and to its training settings (`mixopt.study.identity`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import optuna
from optuna.storages import BaseStorage

from mixopt.core import urls
from mixopt.core.errors import LedgerError
from mixopt.study.identity import Identity, has_trials, is_kept, missing
from mixopt.study.ledger_values import DIRECTIONS
from mixopt.study.storage import BEGIN_ANEW, damaged, reason


@contextlib.contextmanager
def refusing(url: str, owner: Identity) -> Iterator[None]:
    """While the block opens a storage: Optuna is quiet, and whatever fails names `url`."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    except ImportError as error:
        raise LedgerError(
            f"the driver of this database is not installed: {error.__cause__ or error}",
            where=url,
            hint="For PostgreSQL: pip install 'mixopt[postgres]'",
        ) from error
    except LedgerError:
        raise
    except Exception as error:  # SQLAlchemy's many, and Optuna's; all mean the same here
        raise _unusable(url, owner, error) from error
    finally:
        optuna.logging.set_verbosity(before)


def _unusable(url: str, owner: Identity, error: Exception) -> LedgerError:
    if urls.sqlite_path(url) is None:
        check = "Check the study file's `ledger` and that the database can be reached"
    elif damaged(error):
        return lost(url, owner, f"the ledger is damaged: {reason(error)}", "move it away")
    elif _in_folder(url, owner):
        check = "Check that file, its permissions and the space on its disk"
    else:
        check = "Check the study file's `ledger`, that file, and the space on its disk"
    return LedgerError(f"cannot open the ledger: {reason(error)}", where=url, hint=check)


def refuse_lost(url: str, owner: Identity) -> None:
    """Refuse the ledger of a study that has begun where its file is missing or empty.

    Called by what needs the trials it held: only a search begins a new ledger.

    Raises:
        LedgerError: it is, or it cannot be looked at.
    """
    path = urls.sqlite_path(url)
    if path is None:
        return
    with refusing(url, owner):
        if not path.exists():
            raise lost(url, owner, "the ledger is missing")
        if path.stat().st_size == 0:
            raise lost(url, owner, "the ledger is empty")


def lost(url: str, owner: Identity, what: str, or_else: str = "go on without it") -> LedgerError:
    """What is wrong with a SQLite file that holds no trials any more, and what can be done."""
    named = "" if _in_folder(url, owner) else "Check the study file's `ledger`. "
    return LedgerError(
        what,
        where=str(urls.sqlite_path(url) or url),
        hint=f"{named}Restore it from a backup, or {or_else}: {BEGIN_ANEW}",
    )


def check_directions(storage: BaseStorage, study_id: int, name: str, url: str) -> None:
    """Refuse an Optuna study that mixopt did not make."""
    if storage.get_study_directions(study_id) not in DIRECTIONS:
        raise LedgerError(f"study {name!r} there is not one of mixopt's", where=url)


def bind(storage: BaseStorage, study_id: int, owner: Identity) -> None:
    """Bind a ledger that is empty, or the original's of a copy, to `owner`."""
    bound = storage.get_study_user_attrs(study_id)
    wanted = {"training": owner.training, "folder": owner.id}  # the folder last: then it is bound
    if {key: bound.get(key) for key in wanted} != wanted:
        for key, value in wanted.items():
            storage.set_study_user_attr(study_id, key, value)


def check_owner(storage: BaseStorage, study_id: int, owner: Identity, url: str) -> None:
    """Refuse a ledger that another folder or training has."""
    bound = storage.get_study_user_attrs(study_id)
    if bound.get("training", owner.training) != owner.training:
        raise LedgerError(
            "the trials there were trained with other settings or on another corpus",
            where=url,
            hint="Give the study a ledger of its own, or another name",
        )
    own_copy = _in_folder(url, owner) and bound.get("folder") == owner.copied_from
    if bound.get("folder") == owner.id or own_copy:
        return
    if "folder" in bound or storage.get_n_trials(study_id):
        if not is_kept(owner) and (_in_folder(url, owner) or has_trials(owner.home)):
            raise missing(owner.home)
        raise LedgerError(
            f"the trials there are of another study folder than {owner.home}",
            where=url,
            hint="Give the study a ledger of its own, or another name"
            if not _in_folder(url, owner)
            else "Restore the folder's identity.json, by which its ledger knows it, or put the "
            "folder's own ledger back",
        )


def _in_folder(url: str, owner: Identity) -> bool:
    """Whether the ledger is a file in the study folder, and so is copied with it."""
    path = urls.sqlite_path(url)
    return path is not None and path.absolute().is_relative_to(owner.home)
