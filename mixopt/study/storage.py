"""The database behind a ledger: its failures in one sentence, and one driver at a time.

`flock` on the study folder tells two drivers apart where both see that lock. Two machines with a
copy of one folder each do not, but they meet at the database that both name: PostgreSQL holds an
advisory lock for as long as the driver's connection lives.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from mixopt.core import urls
from mixopt.core.errors import LedgerError

PATIENCE_SECONDS = 5.0  # a driver that ends lets go within a second
# A machine that vanished says nothing: the database asks after 60 s of silence, and gives up after
# another 60, instead of the two hours that TCP waits by itself.
KEEPALIVES = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 6}
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BEGIN_ANEW = (
    "`mixopt run` then begins a new ledger and takes up finished trials from their folders, "
    "without training them again"
)
HOLDER = """
select a.application_name, a.backend_start from pg_locks l join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted
and l.classid::bigint = :high and l.objid::bigint = :low
"""


def reporting(storage: BaseStorage, url: str) -> BaseStorage:
    """`storage`, whose failures are LedgerErrors that name `url` and the database's own reason."""
    return cast(BaseStorage, _Reporting(storage, url))


def reason(error: BaseException) -> str:
    """The message of the database or its driver in one line, without what was raised on top."""
    original = _original(error)
    lines = str(original).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(original).__name__


def _original(error: BaseException) -> BaseException:
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "orig", None) or error


def damaged(error: BaseException) -> bool:
    """Whether `error` says that a SQLite file is no database, or not all of one."""
    code = getattr(_original(error), "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    return code in DAMAGED or "no such table" in reason(error)


def kept_by_studies(path: Path) -> list[dict[str, Any]]:
    """User attributes of each study in the SQLite file `path`; none where it cannot be read."""
    if not path.is_file():
        return []
    with contextlib.suppress(StorageInternalError, SQLAlchemyError):
        storage = RDBStorage(urls.read_only(urls.sqlite(path)), skip_table_creation=True)
        try:
            return [dict(study.user_attrs) for study in storage.get_all_studies()]
        finally:
            storage.remove_session()
            storage.engine.dispose()
    return []


@contextlib.contextmanager
def only_driver(storage: RDBStorage, name: str, url: str) -> Iterator[None]:
    """Be the only driver of study `name` at a PostgreSQL `storage` while the block runs.

    Of other databases nothing is asked. The lock ends with its connection, however that ends.

    Raises:
        LedgerError: another driver holds it, named with host and since when.
    """
    if storage.engine.dialect.name != "postgresql":
        yield
        return
    key = hashlib.sha256(f"mixopt {name}".encode()).digest()[:8]
    high, low = (int.from_bytes(part, "big") for part in (key[:4], key[4:]))
    with _reports(url), storage.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        for setting, value in KEEPALIVES.items():
            connection.execute(text(f"set {setting} = {value}"))
        holder = f"mixopt: process {os.getpid()} on {socket.gethostname()}"[:63]
        connection.execute(
            text("select set_config('application_name', :name, false)"), {"name": holder}
        )
        _take(connection, {"high": high, "low": low}, name, url)
        yield


def _take(connection: Connection, key: dict[str, int], name: str, url: str) -> None:
    """Take the advisory lock `key`, waiting a little for another driver to end."""
    asked = text("select pg_try_advisory_lock((cast(:high as bigint) << 32) | :low)")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not connection.execute(asked, key).scalar():
        if time.monotonic() > deadline:
            holder = connection.execute(text(HOLDER), key).first()
            who = (
                f"{holder[0]} since {holder[1]:%Y-%m-%d %H:%M:%S %z}"
                if holder
                else "another driver"
            )
            raise LedgerError(
                f"study {name} is held by {who.removeprefix('mixopt: ')}",
                where=url,
                hint="Wait for it to end, or stop it; of a machine that is gone the database lets "
                "go within two minutes. Two at once would train things twice",
            )
        time.sleep(0.2)


class _Reporting:
    """Hands every call to a storage."""

    def __init__(self, storage: BaseStorage, url: str) -> None:
        self._storage, self._url = storage, url

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._storage, name)

        @functools.wraps(method)
        def reported(*arguments: Any, **named: Any) -> Any:
            with _reports(self._url):
                return method(*arguments, **named)

        return reported


@contextlib.contextmanager
def _reports(url: str) -> Iterator[None]:
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        if urls.sqlite_path(url) is None:
            check = "Check that the database can be reached"
        elif damaged(error):
            check = f"Restore that file from a backup, or move it away: {BEGIN_ANEW}"
        else:
            check = "Check that file, its permissions and the space on its disk"
        raise LedgerError(
            f"the ledger cannot be used: {reason(error)}",
            where=url,
            hint=f"{check}; then run the same command again, which goes on from here",
        ) from error
