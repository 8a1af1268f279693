"""What can be had of the objective's metrics at once: `mixopt front STUDY.yaml`.

The study is only read: it may be running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt.api.study import OpenStudy, open_study
from mixopt.core.intervals import NORMAL_90
from mixopt.io.csv_files import csv_bytes
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.study.what_if import largest_weights
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.wording import command
from mixopt.search.front import FrontPoint

MOST_COLUMNS = 3  # metrics beside each other on a terminal of 100 columns


def show_front(path: Path, out: Path | None = None, *, as_json: bool = False) -> None:
    """Print the predicted Pareto front of the study at `path`, and how to choose from it.

    Args:
        path: the study file.
        out: CSV to write; a row per point.
        as_json: print one JSON object instead of the table.

    Raises:
        StudyError: the study has not begun, or its objective has one metric.
        SurrogateError: too few trials are complete.
    """
    if out is not None:
        writable(out, FILE)
    study = open_study(path)
    with make_error_console().status(styled("fitting, weighing")):
        points = study.front()
    rows = [_row(study, number, point) for number, point in enumerate(points, 1)]
    if out is not None:
        write(out, csv_bytes(pl.DataFrame([_flat(row) for row in rows])))
    if as_json:
        values = {"study": study.settings.name, "surrogate": study.surrogate_name, "points": rows}
        print_json(values)
        return
    _print(make_console(), study, points)
    if out is not None:
        print(out)


def file_weights(study: OpenStudy, weights: Mapping[str, float]) -> dict[str, float]:
    """`weights` as the study file's `objective` writes them: by its names, signed as there."""
    written = {key: weight for key, weight in study.settings.objective.items() if weight != 0}
    pairs = zip(written.items(), weights.values(), strict=True)
    return {key: float(f"{abs(w) if sign > 0 else -abs(w):.3g}") for (key, sign), w in pairs}


def _row(study: OpenStudy, number: int, point: FrontPoint) -> dict[str, Any]:
    return {
        "point": f"f{number}",
        "mixture": point.mixture.as_dict(),
        "objective": file_weights(study, point.weights),
        "metrics": {
            name: {"mean": mean, "std": point.std[name]} for name, mean in point.mean.items()
        },
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a CSV that `search.enqueue` and `mixopt predict --ratios` read."""
    metrics = row["metrics"].items()
    return {
        "run": row["point"],
        **row["mixture"],
        **{f"{name}_{kind}": v for name, values in metrics for kind, v in values.items()},
    }


def _print(console: Console, study: OpenStudy, points: Sequence[FrontPoint]) -> None:
    metrics = study.objective.metrics
    shown, file = metrics[:MOST_COLUMNS], study.settings.path.name
    console.print(
        f"No mixture is predicted to be better than one of these in every metric, by "
        f"{study.surrogate_name}:"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in shown:
        better = ", higher is better" if study.objective.weights[name] < 0 else ""
        table.add_column(styled(f"{name} ± 90 %{better}"), justify="right")
    table.add_column("largest weights", no_wrap=True, overflow="ellipsis")
    for number, point in enumerate(points, 1):
        cells = [f"{point.mean[m]:.4f} ± {NORMAL_90 * point.std[m]:.4f}" for m in shown]
        mark = " now" if dict(point.weights) == dict(study.objective.weights) else ""
        table.add_row(f"f{number}{mark}", *cells, styled(largest_weights(point.mixture)))
    console.print(table)
    if len(shown) < len(metrics):
        console.print(f"{len(metrics) - len(shown)} further metrics: --out FILE.", style="dim")
    console.print(
        "now: of the weights as they are. ± 90 % is of the metric at the search's own seed. The "
        f"weights that choose a point, for `objective` in {file}:",
        style="dim",
    )
    for number, point in enumerate(points, 1):
        words = ", ".join(f"{n}: {w:g}" for n, w in file_weights(study, point.weights).items())
        console.print(styled((f"f{number:<4}", "dim"), f"{{{words}}}"), soft_wrap=True)
    elsewhere = study.settings.trainer is not None and study.settings.trainer.elsewhere
    goes_on = command("ask" if elsewhere else "run", file)
    console.print(f"With them `{goes_on}` recommends that mixture. {_look(study)}", style="dim")


def _look(study: OpenStudy) -> str:
    """What choosing a point costs: a verdict by other weights is another look."""
    taken, planned = len(study.snapshot.judged), study.settings.select.looks
    if taken < planned:
        return f"The gate's verdict by them is look {taken + 1} of {planned} (select.looks)."
    return (
        f"But no look is left (select.looks: {planned}): the gate could select none but the "
        "baseline. Plan more looks in a new study."
    )
