"""MLflow shows what the ledger holds: once, completely, and never in the way."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mixopt.core.errors import MixoptError, StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import CurvePoint, Failure, Outcome, Role, State, Trial, TrialSpec
from mixopt.io import training_log
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.run import sync_study
from mixopt.pipelines.views.mlflow import run_tags, tracking
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore, metric_name
from mixopt.pipelines.views.mlflow.run_names import trial_name
from mixopt.pipelines.views.mlflow.tracking import Tracker, tracking_uri
from mixopt.pipelines.views.reliability import reliability_line
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.study.champion import ChampionDecision
from mixopt.study.ledger import Ledger
from mixopt.study.queries import best_trial
from mixopt.study.records import read_promotion
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import proxy_fidelity
from tests.pipelines.finished_study import (
    finished_study,
    open_ledger,
    owner_of,
    result,
    write_study,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for all tests of this file: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'shared.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield uri


@pytest.fixture(scope="module")
def shown(database: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study that was synced once."""
    study = finished_study(tmp_path_factory.mktemp("study"), "shown")
    assert tracker_of(study).sync(trials_of(study))
    return study


def trials_of(study: Study) -> list[Trial]:
    ledger: Ledger = open_ledger(study)
    try:
        return ledger.trials()
    finally:
        ledger.close()


def tracker_of(study: Study) -> Tracker:
    def fail(message: str) -> None:
        raise AssertionError(message)

    return Tracker.open(study, owner_of(study), on_warning=fail)


def runs_of(study: Study, kind: str) -> list[Run]:
    store = RunStore.open(study)
    return store.runs({run_tags.STUDY: study.name, run_tags.KIND: kind})


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


def test_every_trial_of_the_ledger_is_one_child_run_of_the_study(shown: Study) -> None:
    [parent] = runs_of(shown, "study")
    children = runs_of(shown, "trial")
    trials = trials_of(shown)
    assert {int(r.data.tags["mixopt.trial"]) for r in children} == {t.number for t in trials}
    assert len(children) == len(trials)
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    for run in children:
        trial = trials[int(run.data.tags["mixopt.trial"])]
        assert run.info.status == ("FINISHED" if trial.state is State.COMPLETE else "FAILED")
        assert run.info.run_name == trial_name(trial, shown.mixture_objective())


def test_a_child_run_holds_mixture_metrics_and_cost(shown: Study) -> None:
    trial = trials_of(shown)[0]
    run = next(r for r in runs_of(shown, "trial") if r.data.tags["mixopt.trial"] == "0")
    assert trial.result is not None
    for domain, weight in trial.spec.mixture.as_dict().items():
        assert float(run.data.params[f"mixture.{domain}"]) == pytest.approx(weight, abs=1e-6)
    for name, value in trial.metrics.items():
        assert run.data.metrics[name] == pytest.approx(value)
    assert run.data.metrics["cost/device_seconds"] == trial.result.cost.device_seconds
    assert run.data.metrics["objective"] == trial.metrics["bpb/descriptions"]


def test_a_learning_curve_has_the_tokens_as_steps(shown: Study) -> None:
    run = next(r for r in runs_of(shown, "trial") if r.data.tags["mixopt.trial"] == "0")
    history = client().get_metric_history(run.info.run_id, "curve/bpb/descriptions")
    assert [point.step for point in history] == [80_000 * i for i in range(1, 6)]
    lasted = run.info.end_time - run.info.start_time
    assert lasted == pytest.approx(15_000, abs=2)  # milliseconds, whatever its share of them cost
    assert history[-1].timestamp <= run.info.end_time + 2


def test_showing_everything_again_changes_nothing(shown: Study) -> None:
    def picture() -> list[tuple[str, int, str]]:
        return [
            (
                run.info.run_id,
                sum(len(client().get_metric_history(run.info.run_id, m)) for m in run.data.metrics),
                run.info.status,
            )
            for kind in ("study", "trial", "promotion")
            for run in runs_of(shown, kind)
        ]

    before = picture()
    tracker = tracker_of(shown)
    for trial in trials_of(shown):
        assert tracker.trial(trial)
    assert tracker.sync(trials_of(shown))
    assert picture() == before
    assert len(client().search_model_versions("name = 'shown'")) == 1


def test_the_study_run_has_the_summary_the_table_and_the_best_so_far(shown: Study) -> None:
    [parent] = runs_of(shown, "study")
    assert parent.data.tags["mlflow.note.content"].startswith("**The found mixture is")
    known = study_reliability(shown, trials_of(shown))
    assert verbatim(reliability_line(known)) in parent.data.tags["mlflow.note.content"]
    path = client().download_artifacts(parent.info.run_id, "reliability.json")
    ceiling = json.loads(Path(path).read_text())["bpb/descriptions"]["ceiling"]
    assert ceiling == pytest.approx(known["bpb/descriptions"].ceiling)
    assert parent.data.tags["mixopt.promoted"] == "found"
    files = {f.path for f in client().list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "trials.json", "mixture.json", "verdict.json", "study.yaml"} <= files
    table = client().load_table("1", "trials.json", run_ids=[parent.info.run_id])
    assert len(table) == len(trials_of(shown))
    history = client().get_metric_history(parent.info.run_id, "best/objective")
    values = [point.value for point in sorted(history, key=lambda p: p.step)]
    assert values == sorted(values, reverse=True)
    assert len(values) == sum(t.complete and not t.spec.candidate for t in trials_of(shown))


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


def test_the_promoted_model_comes_back_by_its_alias(shown: Study, tmp_path: Path) -> None:
    [promotion] = runs_of(shown, "promotion")
    assert promotion.info.status == "FINISHED"
    assert promotion.data.metrics["after/bpb/descriptions"] > 0
    [version] = client().search_model_versions("name = 'shown'")
    assert version.run_id == promotion.info.run_id
    tracker, key = tracker_of(shown), version.tags[run_tags.KEY]
    assert tracker.decided(ChampionDecision(promotion=key, alias="champion", reason="the first"))
    found = tracker.registered(key)
    assert found is not None
    assert found.standing is not None
    assert (found.version, found.standing.promotion) == (str(version.version), key)
    folder = mlflow.artifacts.download_artifacts("models:/shown@champion", dst_path=str(tmp_path))
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert (Path(folder) / "MLmodel").exists()


def begun_trial(study: Study, ledger: Ledger, seed: int = 0) -> int:
    mixture = Mixture.uniform(["arithmetic", "docstrings", "headers", "licences", "python", "web"])
    return ledger.add(TrialSpec(mixture, proxy_fidelity(study, study.open_data()), seed)).number


def write_curve(study: Study, number: int, points: Sequence[CurvePoint]) -> None:
    path = trial_folder(study.home, number) / "curve.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in points))


def test_a_trial_is_shown_while_it_runs_and_when_it_ends(database: str, tmp_path: Path) -> None:
    study = write_study(tmp_path, "running")
    tracker, ledger = tracker_of(study), open_ledger(study)
    number = begun_trial(study, ledger)

    def status() -> str:
        [run] = runs_of(study, "trial")
        return str(run.info.status)

    tracker.trial(ledger.trial(number))
    assert status() == "SCHEDULED"
    tracker.trial(ledger.start(number))
    assert status() == "RUNNING"
    ledger.fail(number, Failure.DIVERGED, "loss is NaN")
    tracker.trial(ledger.trial(number))
    assert status() == "FAILED"
    [run] = runs_of(study, "trial")
    assert "loss is NaN" in run.data.tags["mlflow.note.content"]
    ledger.close()


def test_a_run_is_there_from_its_start_and_its_curve_grows(database: str, tmp_path: Path) -> None:
    study = write_study(tmp_path, "live")
    tracker, ledger = tracker_of(study), open_ledger(study)
    number = begun_trial(study, ledger)
    curve = result(ledger.trial(number).spec).curve

    def shown() -> tuple[str, list[int], list[float]]:
        assert tracker._live.wait(30)
        [run] = runs_of(study, "trial")
        history = client().get_metric_history(run.info.run_id, "curve/bpb/web")
        speeds = client().get_metric_history(run.info.run_id, "train/tokens_per_second")
        return run.info.status, [p.step for p in history], [p.value for p in speeds]

    running, tokens, speed = ledger.start(number), [p.tokens for p in curve], 400_000 / 15
    tracker.live(running)
    assert shown() == ("RUNNING", [], [])
    tracker.live(running, curve[:1])
    assert shown() == ("RUNNING", tokens[:1], [speed])
    for point in curve[1:4]:
        tracker.live(running, [point])
    assert shown() == ("RUNNING", tokens[:4], [speed] * 4)
    write_curve(study, number, curve)
    tracker.live(ledger.complete(number, result(running.spec)))
    assert shown() == ("FINISHED", tokens, [speed] * 5)
    assert tracker.sync(ledger.trials())
    assert shown() == ("FINISHED", tokens, [speed] * 5)
    ledger.close()


@pytest.mark.parametrize("way", ["ended", "killed"])
def test_what_a_stopped_driver_left_running_waits_and_goes_on(
    database: str, tmp_path: Path, way: str
) -> None:
    study = write_study(tmp_path, f"interrupted-{way}")
    tracker, ledger = tracker_of(study), open_ledger(study)
    assert tracker.study_started()
    number = begun_trial(study, ledger)
    running = ledger.start(number)
    curve = result(running.spec).curve
    write_curve(study, number, curve[:2])
    assert tracker.trial(running, curve[1:2])
    write_curve(study, number, curve[:3])  # the last point was not shown any more

    def shown() -> tuple[str, str, int]:
        [parent], [run] = runs_of(study, "study"), runs_of(study, "trial")
        history = client().get_metric_history(run.info.run_id, "curve/bpb/web")
        return parent.info.status, run.info.status, len(history)

    if way == "ended":
        assert tracker.study_ended(failed=True)
        assert shown() == ("FAILED", "SCHEDULED", 3)
    else:
        assert shown() == ("RUNNING", "RUNNING", 2)
        assert tracker_of(study).sync(ledger.trials())
        assert shown() == ("SCHEDULED", "SCHEDULED", 3)
        [run] = runs_of(study, "trial")
        assert "Interrupted" in run.data.tags["mlflow.note.content"]
    again = tracker_of(study)
    assert again.study_started()
    assert again.trial(ledger.start(number), curve[3:4])
    assert shown()[:2] == ("RUNNING", "RUNNING")
    write_curve(study, number, curve)
    ledger.complete(number, result(running.spec))
    assert again.sync(ledger.trials())
    assert shown() == ("FINISHED", "FINISHED", 5)
    ledger.close()


def test_nothing_runs_again_by_what_is_posted_late(database: str, tmp_path: Path) -> None:
    study = finished_study(tmp_path, "late", trials=7)
    ended = read_promotion(study.home)
    assert ended is not None
    folder = study.home / "promotion" / ended.id
    tracker, ledger = tracker_of(study), open_ledger(study)
    assert tracker.study_started()
    running = ledger.start(begun_trial(study, ledger))

    def post() -> None:
        tracker.live(running)
        tracker.live_promotion(folder)

    def shown() -> tuple[str, ...]:
        return tuple(runs_of(study, it)[-1].info.status for it in ("study", "trial", "promotion"))

    post()
    assert tracker._live.wait(60)
    assert shown() == ("RUNNING",) * 3
    with tracker._lock:  # the thread has taken a post, and waits for its turn
        tracker.live_promotion(folder)
        while tracker._live._waits:
            time.sleep(0.01)
        end = threading.Thread(target=tracker.study_ended, kwargs={"failed": True})
        end.start()
        while not tracker._live._ended:
            time.sleep(0.01)
    end.join()
    assert tracker._live.wait(60)
    assert shown() == ("FAILED", "SCHEDULED", "KILLED")
    post()  # by a training that ended later than the study
    assert tracker._live.wait(60)
    assert shown() == ("FAILED", "SCHEDULED", "KILLED")
    assert tracker.study_started()
    post()
    assert tracker._live.wait(60)
    assert shown() == ("RUNNING",) * 3
    ledger.close()


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)  # takes connections, and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
        monkeypatch.setattr(tracking, "FIRST_REST", 0.0)
        monkeypatch.setattr(tracking, "PATIENCE_AT_THE_END", 0.1)
        study, warnings = write_study(tmp_path, "hanging"), list[str]()
        owner, ledger = owner_of(study), open_ledger(study)
        tracker = Tracker.open(study, owner, on_warning=warnings.append)  # finds out
        trials = [ledger.start(begun_trial(study, ledger, seed)) for seed in range(20)]
        curve = result(trials[0].spec).curve
        start = time.monotonic()
        for point in curve:
            for trial in trials:
                tracker.live(trial, [point])
        assert not tracker._live.wait(0.2)  # its thread hangs
        assert not tracker.study_ended(failed=True)  # as Ctrl-C does
        tracker.close()
        assert time.monotonic() - start < 1
        assert len(warnings) == 1
        ledger.close()


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


def test_the_study_file_is_uploaded_without_its_passwords(database: str, tmp_path: Path) -> None:
    study = write_study(tmp_path, "secretive")
    with study.path.open("a") as file:
        file.write("# ledger: postgresql://anna:hunter2@host/mixopt\n")
    assert tracker_of(study).sync([])
    run = runs_of(study, "study")[0].info.run_id
    uploaded = Path(client().download_artifacts(run, "study.yaml")).read_text()
    assert "hunter2" not in uploaded
    assert "postgresql://anna:***@host/mixopt" in uploaded


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
        "from tests.pipelines.views.mlflow.test_tracking import *\n"
        "study = load_study(Path(sys.argv[2]) / 'study.yaml')\n"
        "assert tracker_of(study).sync(trials_of(study))\n"
        "assert len(runs_of(study, 'trial')) == len(trials_of(study))\n"
        "assert list((study.home / 'mlartifacts').rglob('trials.csv'))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[4]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tracking_uri(study) == f"sqlite:///{study.home / 'mlflow.db'}"


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


def test_names_that_mlflow_refuses_are_mended() -> None:
    assert metric_name("bpb/C++ (web):α") == "bpb/C__ _web___"


def test_a_trial_that_was_corrected_shows_its_last_value(database: str, tmp_path: Path) -> None:
    study = finished_study(tmp_path, "corrected")
    trials = trials_of(study)
    assert tracker_of(study).sync(trials)
    best = best_trial(trials, study.mixture_objective())
    assert best is not None
    assert best.result is not None
    better = {name: value / 2 for name, value in best.metrics.items()}
    ledger = open_ledger(study)
    ledger.replace(best.number, Outcome(dataclasses.replace(best.result, metrics=better)))
    ledger.close()
    for _ in range(2):
        assert tracker_of(study).sync(trials_of(study))
    expected = study.mixture_objective().value(better)
    (run,) = [
        run for run in runs_of(study, "trial") if run.data.tags["mixopt.trial"] == str(best.number)
    ]
    assert run.data.metrics["objective"] == pytest.approx(expected)
    shown = client().get_metric_history(run.info.run_id, "objective")
    assert len(shown) == 2  # then and now, each once
    [parent] = runs_of(study, "study")
    assert parent.data.metrics["best/objective"] == pytest.approx(expected)


def test_where_weights_of_the_objective_changed_its_values_are_shown_anew(
    database: str, tmp_path: Path
) -> None:
    study = finished_study(tmp_path, "reweighed")
    trials = trials_of(study)
    assert tracker_of(study).sync(trials)
    study.path.write_text(study.path.read_text().replace("{descriptions: 1.0}", "{web: 1.0}"))
    changed = load_study(study.path)
    for _ in range(2):
        assert tracker_of(changed).sync(trials)
    best = min(t.metrics["bpb/web"] for t in trials if t.complete and t.spec.role != Role.SELECT)
    [parent] = runs_of(changed, "study")
    assert parent.data.metrics["best/objective"] == pytest.approx(best)
    for run in runs_of(changed, "trial"):
        trial = trials[int(run.data.tags["mixopt.trial"])]
        if trial.complete:
            assert run.data.metrics["objective"] == pytest.approx(trial.metrics["bpb/web"])
            shown = client().get_metric_history(run.info.run_id, "objective")
            assert len(shown) == 2  # then and now, each once
