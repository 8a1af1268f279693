"""URLs of databases and servers: built and quoted, given a driver, and shown without passwords."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

# Errors mask passwords by this file. SQLAlchemy is imported only where a URL is taken apart:
# trainings need torch and numpy alone, and `mixopt --help` stays quick.
if TYPE_CHECKING:
    from sqlalchemy import URL

USER_PASSWORD = re.compile(r"(://[^\s:/@]*):\S*@")
QUERY_PASSWORD = re.compile(r"([?&](?:password|passwd|pwd|sslpassword|token|secret)=)[^&\s\"']*")
KEY_PASSWORD = re.compile(
    r"(\b(?:password|passwd|sslpassword)=)(?:'[^']*'|[^\s&]+)"
)  # libpq's form
# libpq waits for a host that is gone as long as the kernel does: minutes, without a word
LIBPQ_PATIENCE = {"connect_timeout": "10", "tcp_user_timeout": "60000"}  # s, ms


def masked(text: str) -> str:
    """`text` with `***` for the password of every URL in it."""
    for pattern, shown in (
        (USER_PASSWORD, r"\1:***@"),
        (QUERY_PASSWORD, r"\1***"),
        (KEY_PASSWORD, r"\1***"),
    ):
        text = pattern.sub(shown, text)
    return text


def sqlite(path: Path) -> str:
    """The URL of the SQLite database at `path`, which may hold `?`, `%` and spaces."""
    from sqlalchemy import URL

    plain = URL.create("sqlite", database=str(path))
    if _text(plain) == f"sqlite:///{path}":
        return _text(plain)
    # of a URL that begins with `sqlite:///`, MLflow makes the folder that it names while quoted
    return _text(plain.set(drivername="sqlite+pysqlite"))


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None if `url` is none or names no file."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except ArgumentError:
        return None
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return None
    return Path(str(parts.database))


def with_driver(url: str) -> str:
    """`url` quoted, and with the driver of the extra `postgres` if it names none.

    A PostgreSQL that does not answer is given up after `LIBPQ_PATIENCE`, unless `url` sets others.

    Raises:
        ArgumentError: it is no database URL.
    """
    from sqlalchemy import make_url

    parts = make_url(url)
    if parts.drivername in ("postgresql", "postgres"):
        parts = parts.set(drivername="postgresql+psycopg")
    if parts.drivername in ("postgresql+psycopg", "postgresql+psycopg2"):
        parts = parts.update_query_dict(LIBPQ_PATIENCE | dict(parts.query))
    return _text(parts)


def read_only(url: str) -> str:
    """`url` as `with_driver` gives it; of a SQLite file, so that SQLite only reads it.

    A journal beside the file is an interrupted write that SQLite has to undo first: then it may.

    Raises:
        ArgumentError: it is no database URL.
    """
    from sqlalchemy import make_url

    path = sqlite_path(url)
    if path is None:
        return with_driver(url)
    mode = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
    parts = make_url(url).set(database=f"file:{quote(str(path))}")
    return _text(parts.update_query_dict({"mode": mode, "uri": "true"}))


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
