"""MLflow shows a promotion while it trains, and gives its model back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from mixopt.io import training_log
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.study.champion import ChampionDecision
from mixopt.study.records import read_promotion
from tests.pipelines.finished_study import finished_study
from tests.pipelines.views.mlflow.tracked import client, runs_of, tracker_of, trials_of


def test_a_promotion_is_shown_while_it_trains_and_ends_in_the_same_run(
    database: str, tmp_path: Path
) -> None:
    study = finished_study(tmp_path, "promoting")
    ended = read_promotion(study.home)
    assert ended is not None
    folder = study.home / "promotion" / ended.id

    def report(step: int, began: float = 1.0, loss: float = 0.0) -> None:
        known = {"began": began, "resumed": 0 if began == 1.0 else 1}
        told = {"step": step, "tokens": step, "loss": [loss or 4.0 / step]}
        training_log.append(folder / "moe", known | told)

    tracker = tracker_of(study)
    report(1)
    assert tracker.promotion_trains(folder)
    report(3)  # the checkpoint is of step 1
    assert tracker.promotion_trains(folder)
    [run] = runs_of(study, "promotion")
    assert (run.info.status, run.info.run_name) == ("RUNNING", "promotion 1 · training")
    assert run.data.metrics["train/loss"] == pytest.approx(4 / 3)
    assert tracker.study_started()
    assert tracker.study_ended(failed=True)
    assert runs_of(study, "promotion")[0].info.status == "KILLED"

    another = tracker_of(study)  # of the driver that goes on
    report(2, began=2.0)
    report(3, began=2.0, loss=1.3)
    assert another.promotion_trains(folder)
    assert runs_of(study, "promotion")[0].info.status == "RUNNING"
    report(4, began=2.0)
    assert another.sync(trials_of(study))
    [after] = runs_of(study, "promotion")
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert (after.info.run_name or "").startswith("promotion 1 · found")
    assert after.data.metrics["train/loss"] == 1.0
    history = client().get_metric_history(run.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in sorted(history, key=lambda p: p.step)] == [
        (1, 4.0),
        (3, pytest.approx(4 / 3)),  # once, although it was trained twice
        (4, 1.0),
    ]


@pytest.mark.slow  # starting a server takes half a minute
def test_a_server_shows_the_study_and_serves_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = f"-m mlflow server --port {port} --workers 1 --backend-store-uri sqlite:///server.db"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command.split()],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.3)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        study = finished_study(tmp_path / "study", "served", trials=7)
        assert tracker_of(study).sync(trials_of(study))
        assert len(runs_of(study, "trial")) == len(trials_of(study))
        [version] = client().search_model_versions("name = 'served'")
        tracker, key = tracker_of(study), version.tags[run_tags.KEY]
        assert tracker.decided(ChampionDecision(promotion=key, alias="champion", reason="first"))
        folder = mlflow.artifacts.download_artifacts(
            "models:/served@champion", dst_path=str(tmp_path / "model")
        )
        assert tracker.download_champion(tmp_path / "standing")
        assert (tmp_path / "standing" / "model.safetensors").read_bytes() == b"weights"
        assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
