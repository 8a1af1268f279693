"""`mixopt doctor` on machines that have something wrong: real sockets, databases and folders."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.pipelines.doctor import examine, known_problems, mlflow_versions, ports, ray_cluster
from mixopt.pipelines.doctor.finding import Finding, Level, Place
from mixopt.pipelines.doctor.storage import check_storage, file_system
from mixopt.pipelines.doctor.versions import requirements_met
from mixopt.study.overrides import overriding
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import finished_study, write_study
from tests.pipelines.made_runs import Run


def levels(found: Iterator[Finding] | list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


def test_a_healthy_study_has_nothing_broken_and_says_so_in_json(tmp_path: Path, run: Run) -> None:
    study = finished_study(tmp_path)
    result = run("doctor", study.path, "--json")
    values = json.loads(result.out)
    assert (result.code, values["ok"]) == (0, True), result.out
    checks = {"versions", "devices", "ray", "ports", "mlflow", "storage", "ledger"}
    assert checks <= {finding["check"] for finding in values["findings"]}
    assert any("bf16 has" in finding["text"] for finding in values["findings"])


def test_what_is_broken_is_said_with_its_fix_and_the_exit_code(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path)
    old_schema(study.home / "mlflow.db")
    result = run("doctor", study.path)
    assert result.code == 1
    shown = " ".join(result.out.split())
    assert "Fix: Run `mlflow db upgrade sqlite:///" in shown
    assert "1 thing must be put right" in shown
    assert max(map(len, result.out.splitlines())) <= 100


def old_schema(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('0a8213491aaa')")
        database.commit()


def test_a_database_of_an_older_mlflow_is_told_from_todays_and_from_none(tmp_path: Path) -> None:
    old_schema(tmp_path / "old.db")
    (tmp_path / "none.db").write_text("no database")
    old, none = (mlflow_versions.schema(tmp_path / f"{name}.db") for name in ("old", "none"))
    assert (old.level, "0a8213491aaa" in old.text) == (Level.BROKEN, True)
    assert (none.level, "mixopt sync" in none.fix) == (Level.BROKEN, True)
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'new.db'}").search_experiments()
    assert mlflow_versions.schema(tmp_path / "new.db").level is Level.FINE


@contextlib.contextmanager
def serving(version: str) -> Iterator[str]:
    """An HTTP server that answers `/version` as MLflow's does."""

    class Version(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/version" else 404)
            self.end_headers()
            self.wfile.write(version.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Version) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_mlflow_server_is_compared_with_the_client() -> None:
    from mlflow.version import VERSION

    major, minor, *_ = VERSION.split(".")
    for version, level in (
        (VERSION, Level.FINE),
        (f"{major}.{int(minor) + 1}.0", Level.NOTE),
        ("2.9.1", Level.BROKEN),
    ):
        with serving(version) as uri:
            assert mlflow_versions.server(uri).level is level
    gone = mlflow_versions.server(uri.replace("//", "//me:secret@"))  # nobody listens by now
    assert gone.level is Level.BROKEN
    assert "secret" not in gone.text


def test_a_port_in_use_is_named_with_what_wants_it() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (note,) = ports.ports_free({port: "MLflow's pages: name another"})
    assert (note.level, note.fix) == (Level.NOTE, "Name another")
    assert f"port {port} is taken" in note.text
    assert levels(ports.ports_free({port: "MLflow's pages: name another"})) == [Level.FINE]


def test_packages_that_are_absent_or_too_old_are_broken_and_extras_only_noted() -> None:
    found = list(
        requirements_met(
            ["nosuchpackage>=1", "numpy>=99", "typer>=99; extra == 'x'", "nosuch; extra == 'x'"]
        )
    )
    assert levels(found) == [Level.BROKEN, Level.BROKEN, Level.NOTE]
    assert levels(requirements_met(["numpy>=1"])) == [Level.FINE]


@pytest.mark.parametrize(
    ("environment", "kept", "level"),
    [
        ({}, False, Level.NOTE),
        ({"RAY_AUTH_MODE": "token"}, False, Level.BROKEN),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, False, Level.FINE),
        ({"RAY_AUTH_MODE": "token"}, True, Level.FINE),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/no/such"}, False, Level.BROKEN),
    ],
)
def test_a_token_is_looked_for_where_ray_does(
    environment: dict[str, str], kept: bool, level: Level, tmp_path: Path
) -> None:
    if kept:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("x")
    assert levels(ray_cluster.token(environment, tmp_path)) == [level]


def test_a_cluster_that_does_not_answer_and_sockets_that_are_too_long_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    with overriding(["ray.address=127.0.0.1:1"]):
        place = Place(tmp_path, load_study(tmp_path / "study.yaml"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    broken = [f for f in ray_cluster.check_ray(place) if f.level is Level.BROKEN]
    assert ["no Ray answers" in broken[0].text, "too long" in broken[1].text] == [True, True]


def test_a_folder_that_cannot_be_written_is_broken() -> None:
    found = list(check_storage(Place(Path("/proc/nowhere/study"))))
    assert (found[0].level, "cannot be written" in found[0].text) == (Level.BROKEN, True)


def test_the_innermost_mount_says_what_file_system_it_is(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n")
    assert file_system(tmp_path / "study", mounts) == "nfs4"
    assert file_system(tmp_path.parent, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "absent") == ""


def test_a_lost_ledger_is_broken(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    (study.home / "ledger.db").unlink()
    found = [f for f in known_problems.check_known_problems(Place(study.home, study))]
    assert (found[-1].check, found[-1].level) == ("ledger", Level.BROKEN)
    assert found[-1].fix


def test_known_problems_are_recognized_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, write_study(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    found = list(known_problems.check_known_problems(place))
    assert levels(found) == [Level.NOTE, Level.NOTE]
    assert "RAY_ADDRESS is set" in found[0].text


def test_every_problem_has_a_way_out() -> None:
    assert all(problem.fix and problem.text for problem in known_problems.PROBLEMS)
    assert len(examine.CHECKS) == len(set(examine.CHECKS))


def test_a_read_only_folder_is_broken_for_whoever_may_not_write(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    subprocess.run(["chmod", "a-w", tmp_path], check=True)
    assert Level.BROKEN in levels(check_storage(Place(tmp_path)))
