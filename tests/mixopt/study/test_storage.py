"""A ledger at a real PostgreSQL: its password stays hidden, its failures are one sentence.

Skipped, with the reason, where psycopg or the server's programs are missing.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

from mixopt.core.errors import LedgerError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, Role, TrialSpec
from mixopt.study.identity import claim
from mixopt.study.ledger import Ledger

PASSWORD = "geheim@5/x:%20"
PROGRAMS = [*os.environ["PATH"].split(":"), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
SPEC = TrialSpec(Mixture.of({"law": 0.5, "code": 0.5}), Fidelity("proxy", 1, 1), 0, Role.DESIGN)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of our own, under a user that it accepts: it refuses to run as root."""

    folder: Path
    programs: Path
    port: int

    @property
    def url(self) -> str:
        """With the password in it."""
        made = URL.create("postgresql", "anna", PASSWORD, "127.0.0.1", self.port, "postgres")
        return made.render_as_string(hide_password=False)

    def do(self, program: str, *arguments: str) -> None:
        """Run one of its programs.

        Raises:
            CalledProcessError: it failed.
        """
        subprocess.run(
            [self.programs / program, "-D", self.folder / "data", *arguments],
            user="nobody" if os.getuid() == 0 else None,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.do("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stop it at once, as a machine that loses its power would."""
        self.do("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL whose only user is anna, who has a password."""
    found = shutil.which("pg_ctl", path=":".join(reversed(PROGRAMS)))
    if importlib.util.find_spec("psycopg") is None or found is None:
        pytest.skip("psycopg or PostgreSQL's programs (initdb, pg_ctl) are not installed")
    folder = Path(tempfile.mkdtemp(prefix="mixopt-pg-"))
    (folder / "password").write_text(PASSWORD)
    if os.getuid() == 0:
        for path in (folder, folder / "password"):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, Path(found).parent, port)
    secret = f"--pwfile={folder / 'password'}"
    try:
        server.do("initdb", "--no-sync", "-U", "anna", "--auth=scram-sha-256", secret)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


def opened(home: Path, url: str, name: str = "demo") -> Ledger:
    return Ledger.open(url, name, Objective({"law": 1.0}), claim(home, "recipe"))


def test_a_ledger_there_keeps_trials_and_can_be_read_while_it_is_written(
    server: Server, tmp_path: Path
) -> None:
    with closing(opened(tmp_path, server.url, "kept")) as ledger:
        ledger.add(SPEC)
        reader = Ledger.read(server.url, "kept", ledger.objective, ledger.owner)
        assert [trial.spec for trial in reader.trials()] == [SPEC]
    assert len(opened(tmp_path, server.url, "kept").trials()) == 1


def test_a_second_driver_is_refused_by_the_database_also_where_no_lock_file_is_seen(
    server: Server, tmp_path: Path
) -> None:
    with closing(opened(tmp_path, server.url)):
        with pytest.raises(LedgerError, match=f"study demo is held by process {os.getpid()} on"):
            opened(tmp_path, server.url)
        opened(tmp_path / "other", server.url, "other").close()  # a study of its own is not held
    opened(tmp_path, server.url).close()


def test_a_database_that_goes_is_one_sentence_and_the_ledger_goes_on_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    with closing(opened(tmp_path, server.url, "gone")) as ledger:
        number = ledger.add(SPEC).number
        server.stop()
        for what in (lambda: ledger.note(number, "a line"), lambda: opened(tmp_path, server.url)):
            with pytest.raises(LedgerError, match="Connection refused") as caught:
                what()
            assert f"postgresql://anna:***@127.0.0.1:{server.port}/postgres" in str(caught.value)
            assert PASSWORD not in str(caught.value)
            assert "\n" not in str(caught.value)
        server.start()
        ledger.note(number, "a line")
        assert ledger.trial(number).message == "a line"


def test_a_wrong_password_is_named_and_not_shown(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("geheim", "falsch")
    with pytest.raises(LedgerError, match="password authentication failed") as caught:
        opened(tmp_path, url)
    assert "falsch" not in str(caught.value)
