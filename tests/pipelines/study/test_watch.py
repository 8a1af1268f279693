"""`mixopt status --watch`: one view in place on a terminal, elsewhere what has changed."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.core.trials import Failure
from mixopt.io import locks
from mixopt.pipelines.stopping import STOPPING
from mixopt.pipelines.study.watch import watch_status
from tests.pipelines.finished_study import open_ledger
from tests.pipelines.study.test_status import searching
from tests.pipelines.terminal import Terminal

HEADER = "tiny in "
ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
ENTERED, LEFT, HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path: views that name it are a hundred columns wide."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_watch_ends_with_the_driver_and_prints_what_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = searching(tmp_path)
    watching = threading.Thread(
        target=watch_status, args=(study.path, 0.05), kwargs={"as_json": True}
    )
    with locks.hold(study.home / "driver.lock", "the study"):
        watching.start()
        lines: list[str] = []
        while not lines:
            lines += capsys.readouterr().out.splitlines()
            time.sleep(0.01)
        ledger = open_ledger(study)
        ledger.fail(3, Failure.CRASHED, "gone")
        ledger.close()
        while len(lines) < 2:
            lines += capsys.readouterr().out.splitlines()
            time.sleep(0.01)
    watching.join()
    lines += capsys.readouterr().out.splitlines()
    seen = [json.loads(line) for line in lines]
    assert len({line for line in lines}) == len(lines)
    assert [s["trials"]["failed"] for s in seen] == sorted(s["trials"]["failed"] for s in seen)
    assert (seen[0]["trials"]["failed"], seen[-1]["trials"]["failed"]) == (1, 2)
    assert seen[-1]["driver"] is None


@pytest.mark.slow
def test_a_terminal_shows_one_view_that_fits_and_keeps_the_last(tmp_path: Path) -> None:
    study = searching(tmp_path)
    rows, columns = 16, 100
    with (
        locks.hold(study.home / "driver.lock", "the study"),
        Terminal(
            *(tmp_path, "status", study.path, "--watch", "--every", "0.2"),
            rows=rows,
            columns=columns,
        ) as terminal,
    ):
        terminal.wait_for("waiting")
        ledger = open_ledger(study)
        ledger.fail(3, Failure.CRASHED, "a loss of " + "many words " * 30)
        ledger.close()
        terminal.wait_for("earlier lines")
        terminal.type("\x03")
        assert terminal.ended() == 130, terminal.shown
    _, _, alternate = terminal.shown.partition(ENTERED)
    alternate, _, after = alternate.partition(LEFT)
    views = [view for it in alternate.split(HOME) if HEADER in (view := ESCAPES.sub("", it))]
    assert len(views) >= 2
    for view in views:
        # the terminal echoes ^C wherever the cursor is, and what answers it stands there too; every
        # line of a view is as wide as it
        said = view.replace("^C", "").replace(STOPPING, "")
        lines = [line for line in said.splitlines() if line]
        assert view.count(HEADER) == 1
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns
    whole = ESCAPES.sub("", after)
    assert whole.count(HEADER) == 1
    assert "Trial 0: 90 % for its mean" in whole
    assert " ".join(whole.split()).count("many words") == 30
    assert whole.splitlines()[-1].startswith("stopped: ")


def test_a_terminal_is_left_as_it_was_once_the_driver_ends(tmp_path: Path) -> None:
    study = searching(tmp_path)
    with Terminal(tmp_path, "status", study.path, "--watch", "--every", "0.2") as terminal:
        with locks.hold(study.home / "driver.lock", "the study"):
            terminal.wait_for("driven by")
        assert terminal.ended() == 0, terminal.shown
    after = ESCAPES.sub("", terminal.shown.partition(LEFT)[2])
    assert after.count(HEADER) == 1
    assert "no active driver" in after
