"""Whole studies, run as a user runs them: a study file, commands in processes of their own.

The models are as small as they can be, but every part is real: Ray, the SQLite ledger, MLflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixopt.core.trials import Trial
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.study import identity
from mixopt.study.ledger import Ledger
from mixopt.study.settings import Study, load_study
from tests.pipelines.empty_store import put_empty_store

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds for what takes a few on a quiet machine
MODEL = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "experts": 2,
    "experts_per_token": 1,
    "expert_width": 16,
}
RECIPE = {
    "sequence_length": 32,
    "batch_sequences": 4,
    "evaluations": 2,
    "evaluation_tokens": 512,
    "curve_tokens": 512,
    "precision": "fp32",
    "evaluation_share": None,  # 512 tokens each, however short the training
    "checkpoint_seconds": 0.2,
}
STEP = 4 * 32  # tokens


def slow(*values: Any) -> Any:
    """Parameters of `make test-slow`: `make test` has others of their kind."""
    return pytest.param(*values, marks=pytest.mark.slow)


SMALL: dict[str, Any] = {
    "objective": {"notes": 1.0},
    "proxy": {"tokens": 20 * STEP, "model": MODEL, "recipe": RECIPE},
    "search": {"trials": 5, "repeats": 1, "rounds": 1, "batch": 2, "surrogate": "gp"},
    "select": {"seeds": 2},
    "promote": {
        "seed_tokens": 20 * STEP,
        "expert_tokens": 10 * STEP,
        "tokens": 20 * STEP,
        "model": MODEL,
        "recipe": RECIPE,
    },
    "ray": {"address": "local"},
}


def write_study(
    file: Path, corpus: Path, with_store: bool = True, **sections: Mapping[str, Any] | None
) -> Path:
    """A small study at `file`; a section given here is laid over the small one's keys.

    `with_store`: its folder has MLflow's empty database already, which spares the migrations.
    """
    settings: dict[str, Any] = {"name": file.stem, "corpus": str(corpus), **SMALL}
    for name, changes in sections.items():
        settings[name] = None if changes is None else {**settings.get(name, {}), **changes}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    if with_store and "mlflow" not in sections:
        put_empty_store(file.parent / (settings.get("folder") or settings["name"]))
    return file


def change(file: Path, section: str, **values: Any) -> None:
    """Edit a study file as its owner would."""
    settings = yaml.safe_load(file.read_text())
    settings[section] |= values
    file.write_text(yaml.safe_dump(settings, sort_keys=False))


def environment() -> dict[str, str]:
    """A user's environment: no MLflow or Ray of ours, one thread, 100 columns."""
    away = ("MLFLOW_", "RAY_", "PYTEST_")
    mine = {k: v for k, v in os.environ.items() if not k.startswith(away)}
    return {**mine, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}


def start(*command: str | Path, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """`python -m …` in a process of its own, its output in pipes; `variables` of environment."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a started command to end."""
    try:
        out, err = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()  # without effect on one that has ended
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def mixopt(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the `mixopt` command to its end."""
    return finish(start("mixopt", *arguments, cwd=cwd))


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The same, after checking that the command exited with 0."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until `what` is true; fails if it takes too long, or if `process` ends before."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"ended too early: {process.returncode}\n{out}\n{err}")
        time.sleep(0.01)


def ledger_trials(study: Study | Path) -> list[Trial]:
    """The trials in a study's ledger."""
    study = study if isinstance(study, Study) else load_study(study)
    owner = identity.read(study.home)
    assert owner is not None
    ledger = Ledger.open(study.ledger_url, study.name, study.mixture_objective(), owner)
    try:
        return ledger.trials()
    finally:
        ledger.close()


def attempts(home: Path) -> dict[int, list[dict[str, float]]]:
    """What each trial's folder says about the attempts at it."""
    return {
        int(file.parent.name): [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(home.glob("trials/*/attempts.jsonl"))
    }


def shown_trials(study: Study) -> dict[int, tuple[str, dict[str, float]]]:
    """MLflow's child runs of the trials: number → (status, metrics). Two of one number fail."""
    runs = RunStore.open(study).runs({"mixopt.study": study.name, "mixopt.kind": "trial"})
    numbers = [int(run.data.tags["mixopt.trial"]) for run in runs]
    assert len(numbers) == len(set(numbers)), numbers
    result = [(run.info.status, dict(run.data.metrics)) for run in runs]
    return dict(zip(numbers, result, strict=True))
