"""A new folder is whole or absent, whoever dies while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt.core.errors import FileError
from mixopt.io.new_folder import new_folder

WRITER = """
import sys
from pathlib import Path
from mixopt.io.new_folder import new_folder

with new_folder(Path("made")) as folder:
    (folder / "half").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    """A process that has begun to write `made`, and goes on when it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def fill(out: Path) -> None:
    with new_folder(out) as folder:
        assert list(folder.glob("[!.]*")) == []
        (folder / "whole").write_text("whole")


def test_it_appears_when_the_block_ends_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "made") as folder:
        (folder / "whole").write_text("whole")
        assert not (tmp_path / "deep" / "made").exists()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["made"]
    assert [p.name for p in (tmp_path / "deep" / "made").iterdir()] == ["whole"]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "made") as folder:
        (folder / "half").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere"])
def test_what_exists_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    {"folder": made.mkdir, "file": made.touch, "link to nowhere": lambda: made.symlink_to("no")}[
        kind
    ]()
    with pytest.raises(FileError, match="exists already"):
        fill(made)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = writer(tmp_path)
    with pytest.raises(FileError, match=f"is held by process {first.pid} on "):
        fill(tmp_path / "made")
    first.communicate("go on\n")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["half"]


def test_what_a_killed_writer_left_is_cleaned_up(tmp_path: Path) -> None:
    first = writer(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "made").exists()
    assert (tmp_path / ".made.part" / "half").exists()
    fill(tmp_path / "made")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["whole"]
