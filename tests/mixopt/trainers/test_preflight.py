"""A trainer is looked at before anything is trained: executable, files, function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.trainers.base import make_trainer
from mixopt.trainers.preflight import look_at


def test_what_a_command_needs_is_found(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('never run')\n")
    trainer = make_trainer({"command": "{python} train.py --rate 1 {job}"}, tmp_path)
    found = look_at(trainer)
    assert all(it.fine for it in found)
    assert [it.text for it in found] == [f"{{python}} is {sys.executable}", "train.py is there"]


def test_an_executable_that_is_not_here_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("")
    for command in ("no-such-launcher run.sh {job}", "./no-launcher run.sh {job}"):
        first = look_at(make_trainer({"command": command}, tmp_path))[0]
        assert not first.fine
        assert "there is no executable" in first.text


def test_a_script_of_the_users_beside_the_study_is_executable(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    trainer = make_trainer({"command": "./run.sh {job}"}, tmp_path)
    assert not look_at(trainer)[0].fine  # it may not be run
    script.chmod(0o755)
    assert look_at(trainer)[0].fine


@pytest.mark.parametrize("command", ["torchrun train.py {job}", "{python} src/train.py {job}"])
def test_a_script_that_is_not_there_is_refused(tmp_path: Path, command: str) -> None:
    with pytest.raises(StudyError, match=r"there is no file '(src/)?train\.py'"):
        look_at(make_trainer({"command": command}, tmp_path))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def train(job, report):\n    return {}\n", ""),
        ("import no_such_library\n", "No module named 'no_such_library'"),
        ("def train(\n", "SyntaxError"),
        ("def learn(job, report): ...\n", "has no attribute 'train'"),
        ("train = 3\n", "is no function"),
    ],
)
def test_a_function_is_imported_elsewhere(tmp_path: Path, code: str, why: str) -> None:
    (tmp_path / "ours.py").write_text(code)
    found = look_at(make_trainer("ours:train", tmp_path))
    assert found[0].text == "ours.py is there"
    assert found[1].fine is not bool(why)
    assert why in found[1].text
    assert "ours" not in sys.modules
