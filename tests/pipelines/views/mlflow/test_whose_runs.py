"""Runs belong to one study folder: copies, namesakes and kills leave those of others alone."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

import pytest

from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import finished_study, owner_of, write_study
from tests.pipelines.views.mlflow.tracked import runs_of, tracker_of, trials_of


def test_a_driver_killed_while_logging_is_repaired(database: str, tmp_path: Path) -> None:
    study = finished_study(tmp_path, "killed", trials=7)
    tracker = tracker_of(study)
    store = RunStore.open(study)
    [parent] = runs_of(study, "study")
    tags = {**tracker._tags("trial", parent.info.run_id), run_tags.TRIAL: "0"}
    spec = trials_of(study)[0].spec.training_hash("", "")
    # what a kill leaves: a run without values, and once more from a driver that did not see it
    for _ in range(2):
        store.create("trial 0000", {**tags, run_tags.SPEC: spec}, time.time())
    assert tracker_of(study).sync(trials_of(study))
    runs = [r for r in runs_of(study, "trial") if r.data.tags["mixopt.trial"] == "0"]
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.metrics["objective"] > 0


def test_runs_of_trials_that_the_ledger_does_not_know_are_removed(
    database: str, tmp_path: Path
) -> None:
    study = write_study(tmp_path, "stale")
    tracker = tracker_of(study)
    [parent] = runs_of(study, "study")
    tags = {
        **tracker._tags("trial", parent.info.run_id),
        run_tags.TRIAL: "99",
        run_tags.SPEC: "of an older ledger",
    }
    RunStore.open(study).create("trial 0099", tags, time.time())
    assert tracker_of(study).sync([])
    assert runs_of(study, "trial") == []


def test_two_studies_of_one_name_do_not_share_runs(database: str, tmp_path: Path) -> None:
    first = finished_study(tmp_path / "a", "twin", trials=7)
    second = write_study(tmp_path / "b", "twin")
    assert tracker_of(first).sync(trials_of(first))
    assert tracker_of(second).sync([])
    assert len(runs_of(first, "study")) == 2
    assert len(runs_of(first, "trial")) == len(trials_of(first))


def test_the_sync_of_a_copied_folder_leaves_the_runs_of_the_original(
    database: str, tmp_path: Path
) -> None:
    original = finished_study(tmp_path / "original", "copied", trials=7)
    assert tracker_of(original).sync(trials_of(original))
    before = {run.info.run_id for run in runs_of(original, "trial")}
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = load_study(tmp_path / "copy" / "study.yaml")
    assert tracker_of(copy).sync(trials_of(copy)[:3])
    after = {run.info.run_id for run in runs_of(original, "trial")}
    assert before < after
    assert len(after - before) == 3


@pytest.mark.slow
def test_a_copy_on_another_machine_removes_no_run_of_the_original(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = finished_study(tmp_path, "restored", trials=7)
    assert tracker_of(original).sync(trials_of(original))
    before = {run.info.run_id for run in runs_of(original, "trial")}
    # from a backup made when three trials were there, under the id of the original
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert tracker_of(original).sync(trials_of(original)[:3])
    assert {run.info.run_id for run in runs_of(original, "trial")} == before


@pytest.mark.slow
def test_a_copied_folder_keeps_its_artifacts_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    original = finished_study(tmp_path / "original", "shipped", trials=7)
    assert tracker_of(original).sync(trials_of(original))
    before = sorted(original.home.rglob("*"))
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy, warnings = load_study(tmp_path / "copy" / "study.yaml"), list[str]()
    for _ in range(2):
        assert Tracker.open(copy, owner_of(copy), on_warning=warnings.append).sync(trials_of(copy))
    assert sorted(original.home.rglob("*")) == before
    assert "moved or copied" in warnings[0]
    assert len(warnings) == 1
    assert len(runs_of(copy, "trial")) == len(trials_of(copy))
    assert list(copy.home.glob("mlflow-*.db"))
    assert list(copy.home.glob("mlartifacts/*/artifacts/trials.csv"))
