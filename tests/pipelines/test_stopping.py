"""A command that is stopped, or finds no Ray, says so in one line; the same command goes on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mixopt.corpus.shards import Corpus
from mixopt.io import locks
from mixopt.io.trial_files import CHECKPOINT
from mixopt.pipelines.stopping import stoppable
from mixopt.study.settings import load_study
from tests.pipelines.held import HOLD, HeldRouter
from tests.pipelines.whole_study import (
    MODEL,
    PATIENCE,
    RECIPE,
    STEP,
    attempts,
    environment,
    finish,
    ledger_trials,
    start,
    wait_for,
    write_study,
)

pytestmark = pytest.mark.xdist_group("ray")

ANSWER = "stopping; once more ends at once"
STOPPED = "stopped: run the same command again"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_after_its_clean_up(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    with pytest.raises(SystemExit) as ended, stoppable():
        work()
    assert (ended.value.code, cleaned) == (code, [number])
    assert capsys.readouterr().err.strip().splitlines() == [ANSWER, STOPPED]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


BUSY = """
import hashlib, time
from mixopt.pipelines.stopping import stoppable
with stoppable(["fit", "--out", "my fit"]):
    print("working", flush=True)
    try:
        {work}
    finally:
        time.sleep({cleaning})
"""
NATIVE = "hashlib.pbkdf2_hmac('md5', b'', b'', 2**31 - 1)"  # minutes without a handler called


def busy(work: str, cleaning: float = 0.0) -> subprocess.Popen[str]:
    """A process that has begun to do `work`, and then cleans up for so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(work=work, cleaning=cleaning)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def test_ctrl_c_is_answered_at_once_in_native_code_and_the_second_ends_it() -> None:
    process = busy(NATIVE)
    assert process.stderr is not None
    spent, seen = psutil.Process(process.pid), 0.0
    while spent.cpu_times().user < seen + 0.2:  # of native code alone: it has begun
        seen = seen or spent.cpu_times().user
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == f"{ANSWER}\n"
    process.send_signal(signal.SIGINT)
    assert (process.wait(PATIENCE), process.stderr.read()) == (130, "")


MISSED = """
import os, signal, threading
from mixopt.pipelines.stopping import stoppable
def press():  # as a signal does that comes a moment before the reading: it interrupts no call
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
with stoppable(["init"]):
    threading.Timer(0.3, press).start()
    os.read(0, 1)
"""


def test_a_signal_that_came_a_moment_before_a_wait_ends_it() -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-c", MISSED],
        env=environment(),
        stdin=subprocess.PIPE,  # nothing is written to it
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert (waiting.wait(PATIENCE), waiting.stderr.read().strip().splitlines()) == (
        130,
        [ANSWER, "stopped: `mixopt init` begins again"],
    )


def test_a_second_signal_ends_a_clean_up_that_takes_long() -> None:
    process = busy("time.sleep(600)", cleaning=600.0)
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() + process.stderr.readline() == f"\n{ANSWER}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 143


def test_one_ctrl_c_cleans_up_and_names_the_command_that_begins_again() -> None:
    process = busy("time.sleep(600)")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines() == [
        ANSWER,
        "stopped: `mixopt fit --out 'my fit'` begins again",
    ]


@pytest.mark.slow
def test_a_search_that_is_stopped_keeps_its_trials_and_goes_on(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    router = f"{HeldRouter.__module__}:{HeldRouter.__name__}"
    file = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        proxy={
            "tokens": 2000 * STEP,
            "model": MODEL | {"router": router},
            "recipe": RECIPE | {"checkpoint_seconds": 0.05},
        },
        ray={"cohort": 1},
        mlflow={"enabled": False},
    )
    home, still = load_study(file).home, tmp_path / "hold"

    def stop(number: signal.Signals, begun: int) -> int:
        """Stop a search by `number` once trial 0 has begun so many times; its exit code."""
        still.unlink(missing_ok=True)
        driver = start("mixopt", "search", file, cwd=tmp_path, **{HOLD: str(still)})
        wait_for(lambda: len(attempts(home).get(0, ())) == begun, driver)
        wait_for((home / "trials" / "0000" / CHECKPOINT).exists, driver)
        still.touch()
        driver.send_signal(number)
        done = finish(driver)
        assert done.stderr.strip().splitlines() == [
            ANSWER,
            "stopped: what has ended is kept, and of each training its last checkpoint; "
            f"`mixopt search {file}` goes on",
        ]
        with locks.hold(home / "driver.lock", "the study"):  # it let go
            return done.returncode

    assert stop(signal.SIGTERM, 1) == 143
    before = [(t.number, t.spec) for t in ledger_trials(file)]
    assert stop(signal.SIGINT, 2) == 130
    assert [(t.number, t.spec) for t in ledger_trials(file)] == before
    assert not any(t.ended for t in ledger_trials(file))


def test_a_cluster_that_is_not_there_is_one_line(text_corpus: Corpus, tmp_path: Path) -> None:
    file = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        ray={"address": None},
        mlflow={"enabled": False},
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        search = start("mixopt", "search", file, cwd=tmp_path, RAY_ADDRESS=address)
        done = finish(search)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"RAY_ADDRESS: no Ray answers at {address}" in line
