"""The wheel alone, outside a checkout: what `pip install mixopt` gives a user."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.built import ROOT, build, environment_of

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_demo_runs_from_the_wheel(tmp_path: Path) -> None:
    scripts = environment_of(build(ROOT, "wheel", tmp_path / "wheel"), tmp_path / "environment")
    inherited = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    outside = tmp_path / "outside"
    outside.mkdir()

    def output(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=outside, env=inherited, check=True, capture_output=True, text=True
        ).stdout

    home = output(scripts / "python", "-c", "import mixopt; print(mixopt.__file__)")
    assert Path(home.strip()).is_relative_to(tmp_path / "environment")
    output(scripts / "python", "-m", "pip", "check")
    output(scripts / "mixopt", "demo", "demo")
    study = outside / "demo" / "study"
    assert json.loads((study / "verdict.json").read_text())["improved"]
    assert (study / "promotion" / "result.json").exists()
    assert (study / "report.html").exists()
