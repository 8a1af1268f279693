"""The trainings of a promotion as series of metrics: what they reported, and evaluations.

A metric's step is the tokens of its training. Of a training, at most `POINTS` reports are shown and
all evaluations. Which ones depends on the reports alone, whenever they are looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.core.trials import CurvePoint
from mixopt.io import training_log, trial_files
from mixopt.pipelines.views.mlflow.mlflow_store import curve_metrics
from mixopt.pipelines.views.mlflow.tracked_values import Metric
from mixopt.study.watched import read_watched

POINTS = 1000
NAMES = {
    "learning_rate": "learning_rate",
    "gradient_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
    "router_entropy": "router_entropy",
    "dead_experts": "dead_experts",
    "router_churn": "router_churn",
}
ROUTING = ("router_entropy", "dead_experts", "router_churn")
FEW_EXPERTS = 64  # of all layers: so many have a series each
LAST = ("moe", "full-run")  # folders of the training that a promotion ends with, ours or another's


def training_series(promotion: Path, start: int) -> Iterator[Metric]:
    """All series of the promotion in that folder, whose run began at `start`.

    Those of its last training are `train/…`, `router/…`, `curve/…` and `to_baseline/…`, the
    difference to the baseline's full run and its band; those before it have its
    name in front, such as `seed/train/loss`.
    """
    for log in sorted(promotion.glob(f"*/{training_log.LOG}")):
        folder = log.parent
        prefix = "" if folder.name in LAST else f"{folder.name}/"
        for report in _thinned(training_log.read(folder)):
            for name, value in _values(report, dense=bool(prefix)).items():
                stamp = round(float(report.get("time", start / 1000)) * 1000)
                yield prefix + name, value, int(report["tokens"]), stamp
    for name in LAST:
        yield from evaluations(trial_files.curve_in(promotion / name), promotion, start)
    yield from to_baseline(promotion, start)


def to_baseline(promotion: Path, start: int) -> Iterator[Metric]:
    """The difference to the baseline's full run, and the band that it is expected in."""
    for row in read_watched(promotion).compared:
        shown = {"difference": row.difference, "expected_low": row.low, "expected_high": row.high}
        stamp = start + round(row.seconds * 1000)
        for name, value in shown.items():
            if value is not None:
                yield f"to_baseline/{name}", value, row.tokens, stamp


def evaluations(curve: Sequence[CurvePoint], promotion: Path, start: int) -> Iterator[Metric]:
    """A curve of the promotion in that folder; `train/…` only where its log says nothing of it."""
    logged = any((promotion / name / training_log.LOG).exists() for name in LAST)
    points = [dataclasses.replace(point, training={}) if logged else point for point in curve]
    yield from curve_metrics(points, start)


def _thinned(reports: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    shown = -1
    for report in reports:
        place = POINTS * report["step"] // max(1, report.get("steps", 1))
        if place > shown or report.get("metrics"):
            shown = place
            yield report


def _values(report: Mapping[str, Any], *, dense: bool) -> dict[str, float]:
    """What a report adds; of an evaluation, what was not said by the report before it."""
    shown = NAMES if report.get("loss") else {"router_churn": NAMES["router_churn"]}
    if dense:  # they have no routers
        shown = {name: shown[name] for name in shown if name not in ROUTING}
    found = {f"train/{shown[name]}": report[name] for name in shown if report.get(name) is not None}
    if report.get("loss") and report["loss"][0] is not None:
        found["train/loss"] = report["loss"][0]
    loads = report.get("loads") or ()
    for layer, load in enumerate(loads):
        found[f"router/peak_load/layer {layer}"] = max(load) * len(load)
        if sum(map(len, loads)) <= FEW_EXPERTS:
            found |= {f"router/load/layer {layer}/{e}": share for e, share in enumerate(load)}
    return found
