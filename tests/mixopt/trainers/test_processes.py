"""Nothing of a training outlives it: children, daemons, what ignores SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mixopt.core.errors import LedgerError
from mixopt.io import locks
from mixopt.trainers import processes
from mixopt.trainers.run import Progress
from mixopt.trainers.supervisor import LOCK
from tests.mixopt.trainers.scripts import alive, make_job, make_script, train

pytestmark = pytest.mark.skipif(not processes.LINUX, reason="child subreapers are Linux's")

FORKS = """
def note():
    with (folder / "pids").open("a") as file:
        file.write(f"{os.getpid()}\\n")

def stay():
    note()
    while True:
        time.sleep(60)

note()
if os.fork() == 0:  # a child
    stay()
if os.fork() == 0:  # a daemon: forked twice, in a session of its own
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        stay()
    os._exit(0)
if os.fork() == 0:  # one that ignores SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stay()
while len((folder / "pids").read_text().splitlines()) < 4:
    time.sleep(0.01)
"""
SUPERVISE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.mixopt.trainers.scripts import train
train(Path({folder!r}), {body!r})
"""


def pids(folder: Path) -> list[int]:
    """The processes that noted themselves in `folder`."""
    return [int(line) for line in (folder / "pids").read_text().split()]


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it becomes true."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_what_a_script_leaves_is_ended_with_it(tmp_path: Path) -> None:
    notes: list[str] = []
    body = FORKS + 'finish(metrics={"loss": 1})'
    outcome = train(tmp_path, body, report=lambda progress: notes.append(progress.note))
    assert outcome.result is not None
    assert [alive(pid) for pid in pids(tmp_path / "home")] == [False] * 4
    assert notes == ["the command of 7 left 3 processes; they were ended"]


def test_a_child_that_will_not_go_costs_no_result(tmp_path: Path) -> None:
    body = FORKS + 'finish(metrics={"loss": 1})'
    assert train(tmp_path, body, grace=5.0, heartbeat=4.0).result is not None


def interrupted(tmp_path: Path, body: str, **options: float) -> None:
    """Run the script `body`, which reports and waits, and end it when it has reported."""

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, body + "\nreport(1, loss=2.0)\ntime.sleep(600)", report=stop, **options)


def test_an_interruption_ends_the_whole_tree(tmp_path: Path) -> None:
    interrupted(tmp_path, FORKS)
    assert [alive(pid) for pid in pids(tmp_path / "home")] == [False] * 4


def test_a_script_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGTERM, lambda *_: (folder / 'asked').write_text('yes'))"
    interrupted(tmp_path, body, grace=1.0)
    assert (tmp_path / "home" / "asked").read_text() == "yes"


def test_a_script_may_save_its_state_at_sigterm(tmp_path: Path) -> None:
    body = """
def save(*_):
    time.sleep(0.2)
    (folder / "saved").write_text("yes")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""
    interrupted(tmp_path, body, grace=60.0)
    assert (tmp_path / "home" / "saved").exists()


def supervised(tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that runs a training, and the processes of that, once all have begun."""
    root = str(Path(__file__).parents[3])
    program = SUPERVISE.format(root=root, folder=str(tmp_path), body=FORKS + "time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    file = tmp_path / "home" / "pids"
    assert eventually(lambda: file.exists() and len(pids(file.parent)) == 4)
    return process, pids(file.parent)


def supervisors(process: int) -> tuple[int, int]:
    """The outer and the inner supervisor below `process`."""
    outer = processes.descendants(process)[0]
    return outer, processes.descendants(outer)[0]


@pytest.mark.parametrize("killed", ["driver", "outer", "inner"])
def test_nothing_outlives_a_killed_parent_or_supervisor(tmp_path: Path, killed: str) -> None:
    process, below = supervised(tmp_path)
    outer, inner = supervisors(process.pid)
    victim = {"driver": process.pid, "outer": outer, "inner": inner}[killed]
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, [*below, outer, inner])))
    assert process.wait(60) != 0
    with locks.hold(tmp_path / "home" / LOCK, "what is left"):  # nobody holds it any more
        pass


def test_an_attempt_elsewhere_waits_until_the_old_tree_is_gone(tmp_path: Path) -> None:
    process, below = supervised(tmp_path)
    with pytest.raises(LedgerError, match=r"training 7 is held by process \d+ on"):
        train(tmp_path, "", patience=0.3)
    assert all(map(alive, below))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    told: list[Progress] = []
    body = 'report(1000, loss=1.0)\nfinish(metrics={"loss": 1})'
    job = make_job(tmp_path / "home")
    assert train(tmp_path, body, job, report=told.append, patience=60.0).result is not None
    assert not any(map(alive, below))
    assert json.loads((tmp_path / "home" / "job.json").read_text())["resume"]


def test_files_of_the_studys_folder_stand_in_for_no_module_of_ours(tmp_path: Path) -> None:
    make_script(tmp_path / "study", "")
    (tmp_path / "study" / "argparse.py").write_text("raise SystemExit(7)")
    (tmp_path / "study" / "mixopt.py").write_text("raise SystemExit(7)")
    assert train(tmp_path, 'finish(metrics={"loss": 1})').result is not None
