"""What can be had of the objective's metrics at once: `mixopt front STUDY.yaml`.

The study is only read: it may be running.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt.api.study import OpenStudy, open_study
from mixopt.core.intervals import NORMAL_90
from mixopt.io.csv_files import csv_bytes
from mixopt.pipelines.offline.outputs import FILE, writable, write
from mixopt.pipelines.study.what_if import GAP, NAMED, largest_weights
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import make_console, make_error_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.search.front import Front, FrontPoint
from mixopt.selection.candidates import NATURAL

MOST_WEIGHED, MOST_COLUMNS = 3, 4  # metrics beside each other on a terminal of 100 columns


def show_front(path: Path, out: Path | None = None, *, as_json: bool = False) -> None:
    """Print the predicted Pareto front of the study at `path`, and how to choose from it.

    Args:
        path: the study file.
        out: CSV to write; a row per point, after the baseline's where that lies in the space.
        as_json: print one JSON object instead of the table.

    Raises:
        StudyError: the study has not begun, or its objective has one metric.
        SurrogateError: too few trials are complete.
    """
    if out is not None:
        writable(out, FILE)
    study = open_study(path)
    with make_error_console().status(styled("fitting, weighing")):
        front = study.front()
    baseline = _row(study, baseline_name(study), front.baseline, front)
    rows = [_row(study, point.label, point, front) for point in front]
    if out is not None:  # of mixtures that may be enqueued
        inside = study.space.contains(front.baseline.mixture)
        table = [*([baseline] if inside else []), *rows]
        write(out, csv_bytes(pl.DataFrame([_flat(row) for row in table])))
    if as_json:
        values = {"study": study.settings.name, "surrogate": study.surrogate_name}
        print_json({**values, "baseline": baseline, "points": rows})
        return
    _print(make_console(), study, front)
    if out is not None:
        print(out)


def file_weights(study: OpenStudy, weights: Mapping[str, float]) -> dict[str, float]:
    """`weights` as the study file's `objective` writes them: by its names, signed as there."""
    written = {key: weight for key, weight in study.settings.objective.items() if weight != 0}
    pairs = zip(written.items(), weights.values(), strict=True)
    return {key: float(f"{abs(w) if sign > 0 else -abs(w):.3g}") for (key, sign), w in pairs}


def baseline_name(study: OpenStudy) -> str:
    """What the study calls the mixture to beat."""
    return next(iter(study.snapshot.baselines), NATURAL)


def _row(study: OpenStudy, name: str, point: FrontPoint, front: Front) -> dict[str, Any]:
    limits = {metric: {"limit": limit} for metric, limit in front.limits.items()}
    return {
        "point": name,
        "now": point.own,
        "mixture": point.mixture.as_dict(),
        "objective": file_weights(study, point.weights) if point.weights else None,
        "metrics": {
            metric: {"mean": mean, "std": point.std[metric], **limits.get(metric, {})}
            for metric, mean in point.mean.items()
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


def _print(console: Console, study: OpenStudy, front: Front) -> None:
    metrics, file = tuple(front.baseline.mean), study.settings.path.name
    weighed = study.objective.metrics
    guarded = [name for name in metrics if name not in weighed]
    shown = [*weighed[:MOST_WEIGHED], *guarded][:MOST_COLUMNS]
    console.print(
        f"No mixture is predicted to be better than one of these in every metric, by "
        f"{study.surrogate_name}:"
    )
    higher = {g.metric: g.higher for g in study.settings.guarded()}
    higher |= {name: weight < 0 for name, weight in study.objective.weights.items()}
    columns = {name: higher[name] for name in shown}
    console.print(front_table(front, baseline_name(study), columns, console.width))
    if len(shown) < len(metrics):
        console.print(f"{len(metrics) - len(shown)} further metrics: --out FILE.", style="dim")
    for guardrail in study.settings.guarded():
        limit = front.limits[guardrail.metric]
        kept = f"no {'lower' if guardrail.higher else 'higher'} than {limit:.4f}"
        console.print(styled(f"Guardrail: {guardrail.metric} {kept}."), style="dim")
    console.print(
        "now: of the weights as they are. ± 90 % is of the metric at the search's own seed. Labels "
        f"stay with mixtures. The weights that choose a point, for `objective` in {file}:",
        style="dim",
    )
    for point in front:
        words = ", ".join(f"{n}: {w:g}" for n, w in file_weights(study, point.weights).items())
        console.print(styled((f"{point.label} ", "dim"), f"{{{words}}}"), soft_wrap=True)
    elsewhere = study.settings.trainer is not None and study.settings.trainer.elsewhere
    goes_on = command("ask" if elsewhere else "run", file)
    console.print(f"With them `{goes_on}` recommends that mixture. {_look(study)}", style="dim")


def front_table(front: Front, baseline: str, shown: Mapping[str, bool], room: int) -> Table:
    """The baseline's row, then one per point: no number is ever cut.

    Args:
        front: what is shown.
        baseline: its name.
        shown: metric → whether higher is better, a column each.
        room: columns of the terminal.
    """
    marked = [(f"{point.label}{' now' if point.own else ''}", point) for point in front]
    rows = [
        (
            label,
            *(f"{point.mean[m]:.4f} ± {NORMAL_90 * point.std[m]:.4f}" for m in shown),
            largest_weights(point.mixture),
        )
        for label, point in [(baseline, front.baseline), *marked]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, numbers = min(NAMED, widths[0]), widths[1:-1]
    left = room - first - sum(numbers) - GAP * (len(numbers) + 1)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold", width=first)
    for (name, higher), width in zip(shown.items(), numbers, strict=True):
        better = ", higher is better" if higher else ""
        head = styled(f"{name} ± 90 %{better}")
        table.add_column(head, justify="right", overflow="fold", width=width)
    table.add_column("largest weights", no_wrap=True, overflow="ellipsis", max_width=max(left, 15))
    for row in rows:
        table.add_row(*map(styled, row))
    return table


def _look(study: OpenStudy) -> str:
    """What choosing a point costs: a verdict by other weights is another look."""
    taken, planned = len(study.snapshot.judged), study.settings.select.looks
    if taken < planned:
        return f"The gate's verdict by them is look {taken + 1} of {planned} (select.looks)."
    return (
        f"But no look is left (select.looks: {planned}): the gate could select none but the "
        "baseline. Plan more looks in a new study."
    )
