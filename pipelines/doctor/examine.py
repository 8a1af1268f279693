"""`mixopt doctor`: all checks, printed; the exit code says whether something must be put right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixopt.pipelines.doctor.devices import check_devices
from mixopt.pipelines.doctor.finding import Check, Finding, Level, Place
from mixopt.pipelines.doctor.known_problems import check_known_problems
from mixopt.pipelines.doctor.mlflow_versions import check_mlflow
from mixopt.pipelines.doctor.ports import check_ports
from mixopt.pipelines.doctor.ray_cluster import check_ray
from mixopt.pipelines.doctor.storage import check_storage
from mixopt.pipelines.doctor.versions import check_versions
from mixopt.pipelines.views.console import make_console, styled
from mixopt.pipelines.views.json_output import print_json
from mixopt.study.settings import load_study

CHECKS: tuple[Check, ...] = (
    check_versions,
    check_devices,
    check_ray,
    check_ports,
    check_mlflow,
    check_storage,
    check_known_problems,
)
MARKS = {Level.FINE: ("✓", "green"), Level.NOTE: ("·", "yellow"), Level.BROKEN: ("✗", "bold red")}


def examine(file: Path | None, *, as_json: bool = False) -> bool:
    """Print what every check finds; whether nothing must be put right.

    Args:
        file: a study file, whose folder, cluster and MLflow are looked at; None for this machine
            and the current folder.
        as_json: print one JSON object.

    Raises:
        StudyError: the file is not valid.
    """
    study = None if file is None else load_study(file)
    place = Place(Path.cwd() if study is None else study.home, study)
    found = [finding for check in CHECKS for finding in check(place)]
    broken = [finding for finding in found if finding.level is Level.BROKEN]
    if as_json:
        print_json({"ok": not broken, "findings": [dataclasses.asdict(f) for f in found]})
    else:
        _print(found, len(broken), make_console())
    return not broken


def _print(found: Sequence[Finding], broken: int, console: Console) -> None:
    table = Table.grid(padding=(0, 1))
    for finding in found:
        table.add_row(styled(MARKS[finding.level]), finding.check, finding.text)
        if finding.fix:
            table.add_row("", "", styled((f"Fix: {finding.fix}", "dim")))
    console.print(table)
    several = "" if broken == 1 else "s"
    many = f"{broken} thing{several} must be put right (✗)." if broken else "Nothing is broken."
    console.print(many)
