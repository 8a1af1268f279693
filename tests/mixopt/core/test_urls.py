"""URLs are quoted, given a driver where they name none, and shown without passwords."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from mixopt.core import urls

PATIENCE = "connect_timeout=10&tcp_user_timeout=60000"


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
        ("postgresql://u:p@h/d", f"postgresql+psycopg://u:p@h/d?{PATIENCE}"),
        ("postgres://u:p@h/d", f"postgresql+psycopg://u:p@h/d?{PATIENCE}"),
        ("postgresql+psycopg2://u:p@h/d", f"postgresql+psycopg2://u:p@h/d?{PATIENCE}"),
        ("postgresql+pg8000://u:p@h/d", "postgresql+pg8000://u:p@h/d"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_postgresql_without_a_driver_gets_psycopg_and_is_not_waited_for_in_silence(
    given: str, used: str
) -> None:
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
        ("host=h user=u password=p dbname=d", "host=h user=u password=*** dbname=d"),
        ("host=h password='p q' dbname=d", "host=h password=*** dbname=d"),
    ],
)
def test_passwords_in_a_text_are_masked(text: str, shown: str) -> None:
    assert urls.masked(text) == shown


def test_a_patience_that_the_url_sets_is_kept() -> None:
    used = make_url(urls.with_driver("postgresql://h/d?connect_timeout=60"))
    assert used.query == {"connect_timeout": "60", "tcp_user_timeout": "60000"}
