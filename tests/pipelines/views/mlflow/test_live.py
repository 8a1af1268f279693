"""MLflow shows what trains, while it trains."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from mixopt.core.trials import Failure
from mixopt.pipelines.views.mlflow import tracking
from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.study.records import read_promotion
from tests.pipelines.finished_study import (
    finished_study,
    open_ledger,
    owner_of,
    result,
    write_study,
)
from tests.pipelines.views.mlflow.tracked import (
    begun_trial,
    client,
    runs_of,
    tracker_of,
    write_curve,
)


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
