"""The checkout as pip sees it: a wheel or an sdist, and an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(source: Path, target: str, folder: Path) -> Path:
    """The sdist or wheel that `source` makes."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


def environment_of(wheel: Path, folder: Path) -> Path:
    """The scripts of a new environment that holds `wheel` and what it needs, pinned."""
    venv.create(folder, with_pip=True)
    scripts = folder / "bin"
    pinned = ["-c", str(ROOT / "constraints.txt")]
    install = [scripts / "python", "-m", "pip", "install", "--quiet", *pinned, wheel]
    subprocess.run(install, check=True)
    return scripts
