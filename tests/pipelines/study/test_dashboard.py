"""Learning curves in Optuna's own dashboard, also of a trial that is running."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.trials import TrialSpec
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.trials import CohortTraining
from mixopt.study.overrides import overriding
from tests.pipelines.finished_study import FIDELITY, TOKENS, open_ledger, run, write_study
from tests.pipelines.whole_study import environment, wait_for


def evaluated(folder: Path, step: int, value: float) -> None:
    """Write an evaluation as a worker does."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"bpb/descriptions": value, "bpb/web": 9.0}
    line = {"step": step, "tokens": 1000 * step, "metrics": metrics, "seconds": 1.0}
    with (folder / "curve.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def studied(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """The ledger of a study with a complete trial and a running one, and what its driver reports.

    The second value tells the driver that the worker has trained on.
    """
    study = write_study(tmp_path)
    ledger = open_ledger(study)
    natural = Mixture.natural(TOKENS)
    run(study, ledger, TrialSpec(natural, FIDELITY, 0))
    running = ledger.add(TrialSpec(natural, FIDELITY, 1))
    ledger.close()
    with overriding(["mlflow.enabled=false"]), open_session(study.path) as session:
        (cohort,) = session.packing.form([session.ledger.trial(running.number)], 1)
        training = CohortTraining(session, cohort, 1.0)
        training.started()
        folder = trial_folder(study.home, running.number)

        def worker(step: int, value: float) -> dict[int, float]:
            evaluated(folder, step, value)
            training.progressed()
            stored = optuna.load_study(study_name=study.name, storage=study.ledger_url)
            return dict(stored.trials[running.number].intermediate_values)

        yield study.ledger_url, worker


def test_each_evaluation_of_a_running_trial_reaches_the_ledger_once(
    studied: tuple[str, Any],
) -> None:
    _, worker = studied
    assert worker(2, 4.5) == {2: 4.5}
    assert worker(4, 4.25) == {2: 4.5, 4: 4.25}
    assert worker(4, 7.0) == {2: 4.5, 4: 4.25}  # written again by a resumed training


@pytest.mark.slow
def test_optuna_dashboard_draws_the_curve_of_a_running_trial(
    studied: tuple[str, Any], tmp_path: Path
) -> None:
    url, worker = studied
    worker(2, 4.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    with (tmp_path / "log").open("w") as log:
        dashboard = subprocess.Popen(
            [program, url, "--host", "127.0.0.1", "--port", str(port)],
            env=environment(),
            stdout=log,
            stderr=log,
        )
    try:
        asked = f"http://127.0.0.1:{port}/api/studies"
        wait_for(lambda: answers(asked), None)
        (listed,) = get(asked)["study_summaries"]
        worker(4, 4.25)
        deadline = time.monotonic() + 60
        while True:
            complete, running = get(f"{asked}/{listed['study_id']}?after=0")["trials"]
            if len(running["intermediate_values"]) == 2 or time.monotonic() > deadline:
                break
            time.sleep(0.2)  # it asks its storage every few seconds
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert running["state"] == "Running"
    assert running["intermediate_values"] == [
        {"step": 2, "value": 4.5},
        {"step": 4, "value": 4.25},
    ]
    assert complete["state"] == "Complete"
    assert len(complete["intermediate_values"]) > 1


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def answers(url: str) -> bool:
    try:
        get(url)
    except OSError:
        return False
    return True
