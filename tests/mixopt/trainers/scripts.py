"""Small trainers for tests: what each begins with, and how one is run."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from mixopt.core.trials import Fidelity, Outcome
from mixopt.trainers.command import Command
from mixopt.trainers.job import Domain, TrainingJob
from mixopt.trainers.run import run_training

START = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
folder = Path(job["folder"])

def report(tokens, **metrics):
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"tokens": tokens, "metrics": metrics}) + "\\n")

def finish(**values):
    (folder / "part").write_text(json.dumps(values))
    (folder / "part").rename(folder / "result.json")
"""
MIXTURE = {"web": 0.75, "code": 0.25}


def make_job(folder: Path, **changes: Any) -> TrainingJob:
    """A job of 1,000 tokens in `folder`."""
    job = TrainingJob(
        "demo",
        "7",
        MIXTURE,
        1000,
        3,
        Fidelity("proxy", 10, 1000),
        folder=str(folder),
        metrics=("loss",),
        domains={"web": Domain(3000, "/data/web"), "code": Domain(1000)},
    )
    return dataclasses.replace(job, **changes)


def make_script(folder: Path, body: str) -> Command:
    """A trainer that runs `body` after `START`, from a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(START + body)
    return Command(folder=folder, command=f"{sys.executable} train.py {{job}}")


def train(tmp_path: Path, body: str, job: TrainingJob | None = None, **options: Any) -> Outcome:
    """The outcome of one attempt by the script `body`."""
    trainer = make_script(tmp_path / "study", body)
    options = {"grace": 0.3} | options
    return run_training(trainer, job or make_job(tmp_path / "home"), **options)


def alive(pid: int) -> bool:
    """Whether the process runs, and is no zombie."""
    try:
        return os.stat(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().split()[2] not in "ZX"
    except OSError:
        return False
