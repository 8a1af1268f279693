"""URLs are quoted, given a driver where they name none, and shown without passwords."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from mixopt import urls


@pytest.mark.parametrize("path", ["/a/ledger.db", "/lr?v=2/a.db", "/lr%20x/a.db", "/a b#{c}/é.db"])
def test_a_path_comes_back_from_its_url(path: str) -> None:
    url = urls.sqlite(Path(path))
    assert urls.sqlite_path(url) == Path(path)
    assert make_url(url).get_backend_name() == "sqlite"
    assert "?" not in url


@pytest.mark.parametrize("url", ["http://host:5000", "postgresql://h/d", "sqlite://", "mlruns"])
def test_what_names_no_sqlite_file_has_no_path(url: str) -> None:
    assert urls.sqlite_path(url) is None


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_postgresql_without_a_driver_gets_psycopg(given: str, used: str) -> None:
    assert urls.with_driver(given) == used


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:p@h:5000/x, twice", "at http://u:***@h:5000/x, twice"),
        ("postgresql+psycopg://u:p/q:r@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("http://host:5000 is down", "http://host:5000 is down"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("http://u@h/x", "http://u@h/x"),
    ],
)
def test_passwords_in_a_text_are_masked(text: str, shown: str) -> None:
    assert urls.masked(text) == shown
