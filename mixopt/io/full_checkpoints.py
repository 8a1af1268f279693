"""Which checkpoint a full run goes on from, read without torch; `proxies.full_run` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.io import markers, training_log
from mixopt.io.trial_files import CHECKPOINTS


def steps_kept(folder: Path) -> list[int]:
    """Steps that have a checkpoint in `folder`, that of a training; the last first."""
    found = (folder / CHECKPOINTS).glob("step-[0-9]*")
    return sorted((int(path.name.rpartition("-")[2]) for path in found), reverse=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the training in `folder` keeps its checkpoint of `step`."""
    return folder / CHECKPOINTS / f"step-{step:09d}"


def resumed_tokens(folder: Path) -> int:
    """Tokens of the newest checkpoint that is whole by the sizes of its files; 0 without one."""
    for step in steps_kept(folder):
        path = checkpoint_path(folder, step)
        about = markers.read_alone(path)
        if about is not None and _there(path, about.get("files")):
            return int(about["tokens"]) if "tokens" in about else step * _step_tokens(folder)
    return 0


def _step_tokens(folder: Path) -> int:
    """Tokens of a step, by what was reported: older checkpoints do not name theirs."""
    last = next(reversed(training_log.read(folder)), None)
    return int(last["tokens"]) // int(last["step"]) if last and last["step"] else 0


def _there(path: Path, kept: Mapping[str, Any] | None) -> bool:
    try:
        return kept is not None and all(
            (path / name).stat().st_size == about["bytes"] for name, about in kept.items()
        )
    except OSError:
        return False
