"""MLflow is never in the way: what is wrong with it is told once, and without passwords."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixopt.core.errors import MixoptError, StudyError
from mixopt.pipelines.study.run import sync_study
from mixopt.pipelines.views.mlflow.tracking import Tracker, tracking_uri
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import finished_study, owner_of, write_study
from tests.pipelines.views.mlflow.tracked import tracker_of, trials_of


def test_a_password_is_masked_in_commands_and_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study, warnings = write_study(tmp_path, "secretive"), list[str]()
    Tracker.open(study, owner_of(study), on_warning=warnings.append)
    assert "http://anna:***@127.0.0.1:1" in warnings[0]
    assert "hunter2" not in warnings[0]


def test_mlflow_down_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    study = finished_study(tmp_path, "down", trials=7)
    warnings: list[str] = []
    start = time.monotonic()
    tracker = Tracker.open(study, owner_of(study), on_warning=warnings.append)
    assert [tracker.trial(trial) for trial in trials_of(study)] == [False] * len(trials_of(study))
    assert tracker.sync(trials_of(study)) is False
    assert time.monotonic() - start < 30
    [message] = warnings
    assert "mixopt sync study.yaml" in message
    assert str(port) in message
    assert sum(t.complete for t in trials_of(study)) > 0


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:9"])
def test_sync_tells_in_one_line_why_mlflow_cannot_be_used_and_what_helps(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study = finished_study(tmp_path, "junk", trials=7)
    database = study.home / "mlflow.db"
    database.write_bytes(b"no database" * 100)
    with pytest.raises(MixoptError) as caught:
        sync_study(study.path)
    reason = "[Errno 111] Connection refused" if uri else "file is not a database"
    way_on = "once MLflow is back" if uri else "rebuilds it from the ledger"
    message = str(caught.value)
    assert message.startswith(f"{uri or database}: MLflow cannot be used: {reason}. ")
    assert message.endswith(f"{way_on}.")
    assert "\n" not in message


def test_sync_of_a_study_without_mlflow_names_the_switch(tmp_path: Path) -> None:
    study = finished_study(tmp_path, "off", trials=7)
    study.path.write_text(study.path.read_text() + "mlflow: {enabled: false}\n")
    with pytest.raises(StudyError, match=r"mlflow\.enabled: MLflow is switched off"):
        sync_study(study.path)


def test_a_study_without_mlflow_leaves_no_trace_of_it(tmp_path: Path) -> None:
    write_study(tmp_path, "off")
    text = (tmp_path / "study.yaml").read_text()
    (tmp_path / "study.yaml").write_text(text + "mlflow: {enabled: false}\n")
    study = load_study(tmp_path / "study.yaml")
    (study.home / "mlflow.db").unlink()
    assert tracker_of(study).sync([]) is False
    assert not list(study.home.glob("ml*"))


@pytest.mark.slow
def test_a_deleted_database_is_rebuilt_silently_in_the_study_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = finished_study(tmp_path, "alone", trials=7)
    assert tracker_of(study).sync(trials_of(study))
    (study.home / "mlflow.db").unlink()
    # a process of its own, as `mixopt sync` is: the database behind an open engine cannot go away
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from mixopt.study.settings import load_study\n"
        "from tests.pipelines.views.mlflow.tracked import *\n"
        "study = load_study(Path(sys.argv[2]) / 'study.yaml')\n"
        "assert tracker_of(study).sync(trials_of(study))\n"
        "assert len(runs_of(study, 'trial')) == len(trials_of(study))\n"
        "assert list((study.home / 'mlartifacts').rglob('trials.csv'))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[4]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tracking_uri(study) == f"sqlite:///{study.home / 'mlflow.db'}"
