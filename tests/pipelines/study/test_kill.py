"""A driver is killed in mid-search; the same command finishes what it began, and nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mixopt.core.errors import CheckpointError
from mixopt.core.trials import State, Trial
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CHECKPOINT, read_cohorts, trial_folder
from mixopt.proxies.checkpoint import load_state
from mixopt.study.settings import Study, load_study
from tests.pipelines.held import HOLD, HeldRouter
from tests.pipelines.whole_study import (
    MODEL,
    RECIPE,
    STEP,
    attempts,
    finish,
    ledger_trials,
    shown_trials,
    start,
    succeeded,
    wait_for,
    write_study,
)

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

SECONDS_TO_DIE = 30.0
STEPS = 400  # of a trial: a second or so
# What a study trains whose trials can be held: until the kill they stand still, however short.
HELD = {
    "model": MODEL | {"router": f"{HeldRouter.__module__}:{HeldRouter.__name__}"},
    "recipe": RECIPE | {"checkpoint_seconds": 0.05},
}


@dataclass(frozen=True)
class Killed:
    """A study whose driver was killed, then run to its end.

    Attributes:
        study: the study.
        interrupted: trials that had begun and not ended when the driver died.
        training: workers that were training when it died.
        orphans: workers of the killed driver that still trained `SECONDS_TO_DIE` later.
        driver: its process id.
        second: how the second driver fared that was started while the first one ran.
        shown: number of a trial → the status of its run in MLflow, after the kill.
        synced: the same after `mixopt sync`.
    """

    study: Study
    interrupted: set[int]
    training: int
    orphans: list[str]
    driver: int
    second: subprocess.CompletedProcess[str]
    shown: dict[int, str]
    synced: dict[int, str]


def write(folder: Path, corpus: Corpus, steps: int = STEPS) -> Path:
    """A study of six trials and a selection; no promotion."""
    return write_study(
        folder / "study.yaml",
        corpus.path,
        proxy={"tokens": steps * STEP, **HELD},
        search={"trials": 4, "repeats": 0},
        promote=None,
        ray={"cohort": 1},
    )


def run(file: Path) -> None:
    """Run the study to its end."""
    succeeded(finish(start("mixopt", "run", file, cwd=file.parent)))


def hold(file: Path, begun: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    """Hold all trainings still, one of which has `begun` and is far from its end."""
    while True:
        wait_for(begun, driver)
        file.touch()
        if begun():  # from now on: each training ends its step at most
            return
        file.unlink()


def kill(driver: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Kill the driver alone; how many workers were training, and those that live on nevertheless.

    Ray's agents, which train nothing, take a minute to see that they are alone.
    """
    family = psutil.Process(driver.pid).children(recursive=True)
    training = [process for process in family if holds_a_trial(process)]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    deadline = time.monotonic() + SECONDS_TO_DIE
    while any(map(lives, training)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(training), [str(process) for process in training if lives(process)]


def holds_a_trial(process: psutil.Process) -> bool:
    try:
        files = process.open_files()
    except psutil.Error:  # it ended meanwhile
        return False
    patterns = ("trials/*/lock", "cohorts/*/lock")
    return any(Path(file.path).match(pattern) for file in files for pattern in patterns)


def lives(process: psutil.Process) -> bool:
    """Whether it runs; what is dead and was not asked for, as in some containers, does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ended(home: Path) -> set[int]:
    return {int(marker.parent.name) for marker in home.glob("trials/*/done.json")}


def resumable(home: Path) -> set[int]:
    found = home.glob("trials/*/checkpoint.safetensors")
    return {int(checkpoint.parent.name) for checkpoint in found} - ended(home)


def statuses(study: Study) -> dict[int, str]:
    return {number: status for number, (status, _) in shown_trials(study).items()}


def running(study: Study) -> set[int]:
    return {number for number, status in statuses(study).items() if status == "RUNNING"}


def just_begun(home: Path) -> set[int]:
    """Trials with a checkpoint that is far from their end."""
    return {n for n in resumable(home) if early(trial_folder(home, n) / CHECKPOINT)}


def early(checkpoint: Path) -> bool:
    """Whether a training that has this checkpoint is far from its end."""
    try:
        return bool(load_state(checkpoint)[1]["step"] < STEPS / 3)
    except CheckpointError:  # it ended meanwhile, and the checkpoint is gone
        return False


@pytest.fixture(scope="module")
def killed(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    file = write(tmp_path_factory.mktemp("killed"), text_corpus)
    study, still = load_study(file), file.parent / "hold"
    driver = start("mixopt", "run", file, cwd=file.parent, **{HOLD: str(still)})
    lock = study.home / "driver.lock"
    wait_for(lambda: lock.exists() and lock.stat().st_size > 0, driver)
    other = start("mixopt", "run", file, cwd=file.parent)
    wait_for(lambda: bool(ended(study.home)), driver)
    hold(still, lambda: bool(just_begun(study.home)), driver)
    second = finish(other)
    wait_for(lambda: resumable(study.home) <= running(study), driver)
    training, orphans = kill(driver)
    interrupted, shown = resumable(study.home), statuses(study)
    still.unlink()
    succeeded(finish(start("mixopt", "sync", file, cwd=file.parent)))
    synced = statuses(study)
    run(file)
    return Killed(study, interrupted, training, orphans, driver.pid, second, shown, synced)


@pytest.fixture(scope="module")
def whole(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same study file in another folder, never interrupted."""
    file = write(tmp_path_factory.mktemp("whole"), text_corpus)
    run(file)
    return load_study(file)


def found(trials: list[Trial]) -> list[object]:
    return [(t.number, t.spec, t.state, t.metrics) for t in trials]


def test_a_second_driver_is_refused_and_told_who_holds_the_study(killed: Killed) -> None:
    assert killed.second.returncode == 1
    result = " ".join(killed.second.stderr.split())
    assert f"study study is held by process {killed.driver} on " in result
    assert "Traceback" not in result


def test_the_killed_drivers_workers_die_with_it(killed: Killed) -> None:
    assert killed.training
    assert killed.orphans == []


def test_after_a_kill_every_trial_is_completed_once(killed: Killed) -> None:
    trials = ledger_trials(killed.study)
    assert {t.state for t in trials} == {State.COMPLETE}
    result = attempts(killed.study.home)
    assert sorted(result) == [t.number for t in trials]
    completions = {n: sum("completed" in line for line in lines) for n, lines in result.items()}
    assert completions == dict.fromkeys(result, 1)
    starts = {n: sum("started" in line for line in lines) for n, lines in result.items()}
    assert killed.interrupted
    assert all(starts[number] == 2 for number in killed.interrupted)


def test_mlflow_shows_what_trains_and_after_a_kill_what_waits(killed: Killed) -> None:
    assert killed.interrupted
    assert {killed.shown[number] for number in killed.interrupted} == {"RUNNING"}
    assert {killed.synced[number] for number in killed.interrupted} == {"SCHEDULED"}
    assert "RUNNING" not in killed.synced.values()


def test_after_a_kill_mlflow_shows_each_trial_once(killed: Killed) -> None:
    shown = shown_trials(killed.study)
    assert sorted(shown) == [t.number for t in ledger_trials(killed.study)]
    assert {status for status, _ in shown.values()} == {"FINISHED"}


def test_a_killed_study_proposes_and_finds_what_an_uninterrupted_one_does(
    killed: Killed, whole: Study
) -> None:
    assert found(ledger_trials(killed.study)) == found(ledger_trials(whole))  # bit for bit
    verdicts = [
        json.loads((study.home / "verdict.json").read_text()) for study in (killed.study, whole)
    ]
    for verdict in verdicts:
        for candidate in verdict["candidates"]:
            del candidate["device_seconds"]
    assert verdicts[0] == verdicts[1]


def test_a_study_killed_while_cohorts_train_goes_on_with_the_same_ones(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    broken, whole = (
        write_study(
            tmp_path / name / "study.yaml",
            text_corpus.path,
            proxy={"tokens": STEPS * STEP, **HELD},
            search={"trials": 5, "repeats": 0, "rounds": 0},
            ray={"cohort": 3},
            mlflow={"enabled": False},
        )
        for name in ("broken", "whole")
    )
    home = load_study(broken).home

    def checkpoints() -> list[Path]:
        return sorted(home.glob("cohorts/*/checkpoint.safetensors"))

    def begun() -> bool:
        return any(map(early, checkpoints()))

    still = tmp_path / "hold"
    driver = start("mixopt", "search", broken, cwd=broken.parent, **{HOLD: str(still)})
    hold(still, begun, driver)
    training, orphans = kill(driver)
    assert training
    assert orphans == []
    cohorts = read_cohorts(home)
    interrupted = [number for path in checkpoints() for number in cohorts[path.parent]]
    assert interrupted
    still.unlink()
    for file in (broken, whole):
        succeeded(finish(start("mixopt", "search", file, cwd=file.parent)))
    assert read_cohorts(home) == cohorts
    assert found(ledger_trials(broken)) == found(ledger_trials(whole))  # bit for bit
    for number, lines in attempts(home).items():
        assert sum("completed" in line for line in lines) == 1
        assert number not in interrupted or sum("started" in line for line in lines) == 2


@pytest.mark.timeout(1800)
def test_a_study_killed_again_and_again_at_any_moment_ends_the_same(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    file, whole = (write(tmp_path / name, text_corpus, 2 * STEPS) for name in ("broken", "whole"))
    run(whole)
    rng = random.Random(0)
    for _ in range(8):
        driver = start("mixopt", "run", file, cwd=file.parent)
        time.sleep(rng.uniform(3, 30))  # importing, starting Ray, training, proposing, selecting …
        assert kill(driver)[1] == []
    run(file)
    assert found(ledger_trials(file)) == found(ledger_trials(whole))
    assert all(
        sum("completed" in line for line in lines) == 1
        for lines in attempts(load_study(file).home).values()
    )
