"""The files of a trial: where they lie, and its learning curve read.

Reading only, and forgiving: a view of a study must open at any stage of it, also while a trial is
being written or after a crash. What is absent or half-written reads as nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.core.trials import CurvePoint, Trial

CHECKPOINT = "checkpoint.safetensors"  # in a trial's folder, or in that of its cohort
CHECKPOINTS = "checkpoints"  # of a full run: a folder of folders
KEPT = 2  # whole ones of them; should the disk lose the newest, one is left
TRAINED = "trained"  # of a full run of a Hugging Face checkpoint: such a folder
CURVE = "curve.jsonl"  # beside it; in the end in the trial's folder
MARKER = "done.json"  # in a trial's folder: its training is complete
COHORT = "cohort.json"  # in a cohort's folder: its trials


def trial_folder(home: Path, number: int) -> Path:
    """Where trial `number` of the study at `home` keeps its curve, checkpoint and marker."""
    return home / "trials" / f"{number:04d}"


def cohort_folder(home: Path, numbers: Sequence[int]) -> Path:
    """Where trials that train together keep what they share until they end."""
    return home / "cohorts" / f"{numbers[0]:04d}-{numbers[-1]:04d}"


def read_cohorts(home: Path) -> dict[Path, list[int]]:
    """Folder of each cohort → the numbers of its trials, in the order of its proxies."""
    cohorts = {}
    for path in sorted(home.glob(f"cohorts/*/{COHORT}")):
        numbers = read_object(path).get("trials")
        if isinstance(numbers, list) and all(isinstance(n, int) for n in numbers):
            cohorts[path.parent] = numbers
    return cohorts


def training_folder(home: Path, number: int) -> tuple[Path, int]:
    """Where trial `number` trains, and which of the proxies there is its own."""
    alone = trial_folder(home, number)
    if not (alone / CURVE).exists():
        for folder, numbers in read_cohorts(home).items():
            if number in numbers:
                return folder, numbers.index(number)
    return alone, -1


def read_curve(home: Path, trial: Trial) -> list[CurvePoint]:
    """The learning curve of `trial`, oldest point first, ending with its final metrics.

    That of a trial that is not complete (running, pruned, failed) ends with its last evaluation. A
    resumed training may have written a step twice: the later line counts. A torn last line is
    left out.
    """
    curve = curve_in(*training_folder(home, trial.number))
    if trial.result is None or not trial.complete:
        return curve
    curve = curve or list(trial.result.curve)
    tokens, last = trial.result.cost.tokens, curve[-1] if curve else None
    if last is None or last.tokens < tokens:
        step = 1 if last is None else last.step + 1
        seconds = trial.result.cost.device_seconds
        return [*curve, CurvePoint(step, tokens, trial.metrics, seconds)]
    return [*curve[:-1], dataclasses.replace(last, metrics=trial.metrics)]


def curve_in(folder: Path, proxy: int = -1) -> list[CurvePoint]:
    """The points in a training's folder, oldest first; of a cohort, those of the proxy."""
    points: dict[int, CurvePoint] = {}
    for line in _lines(folder / CURVE):
        try:
            point = json.loads(line)
            if proxy >= 0 and point["proxy"] != proxy:
                continue
            points[int(point["step"])] = CurvePoint(
                step=int(point["step"]),
                tokens=int(point["tokens"]),
                metrics=_numbers(point["metrics"]),
                seconds=float(point.get("seconds", 0.0)),
                on_curve_text=_numbers(point.get("on_curve_text", {})),
                training=_numbers(point.get("training", {})),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return [points[step] for step in sorted(points)]


def finished_at(home: Path, number: int) -> float | None:
    """When the completion marker of trial `number` was written, seconds since 1970."""
    marker = trial_folder(home, number) / MARKER
    return marker.stat().st_mtime if marker.exists() else None


def curve_points(values: Sequence[Any]) -> list[CurvePoint]:
    """Curve points from their JSON form."""
    return [
        CurvePoint(
            int(p["step"]),
            int(p["tokens"]),
            dict(p["metrics"]),
            float(p.get("seconds", 0)),
            dict(p.get("on_curve_text", {})),
            dict(p.get("training", {})),
        )
        for p in values
    ]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`; empty where there is none that can be read."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
