"""Commands that show a study, and change nothing in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mixopt.pipelines.cli.groups import AsJson, Group, Overrides, StudyFile

group = Group("Study: look at it")


@group.command(
    "mixopt status study.yaml",
    "mixopt status study.yaml --watch",
    "mixopt status study.yaml --json",
)
def status(
    study: StudyFile,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until the driver ends.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")
    ] = 2.0,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Show where a study stands; safe while it runs."""
    from mixopt.pipelines.study.status import show_status
    from mixopt.pipelines.study.watch import watch_status

    if watch:
        watch_status(study, every, as_json=as_json)
    else:
        show_status(study, as_json=as_json)


@group.command("mixopt report study.yaml", "mixopt report study.yaml --out study.html")
def report(
    study: StudyFile,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; report.html in the study folder.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write the HTML report from the ledger; safe while it runs."""
    from mixopt.pipelines.offline.outputs import FILE, writable
    from mixopt.pipelines.views.report import write_report
    from mixopt.study.settings import load_study

    if out is not None:
        writable(out, FILE)
    print(write_report(load_study(study), out))


@group.command(
    "mixopt trials study.yaml", "mixopt trials study.yaml --format parquet --out trials.parquet"
)
def trials(
    study: StudyFile,
    format: Annotated[
        Literal["csv", "json", "parquet"], typer.Option(help="Format of the table.")
    ] = "csv",
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Write the trials as a table, a row each; safe while it runs."""
    from mixopt.pipelines.study.export_trials import export_trials

    export_trials(study, format, out, as_json=as_json)


@group.command("mixopt front study.yaml", "mixopt front study.yaml --out front.csv")
def front(
    study: StudyFile,
    out: Annotated[Path | None, typer.Option(help="CSV to write, a row per mixture.")] = None,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Show what can be had of several metrics at once: the Pareto front, and how to choose."""
    from mixopt.pipelines.study.front import show_front

    show_front(study, out, as_json=as_json)


@group.command("mixopt ui study.yaml", "mixopt ui study.yaml --open --port 5005")
def ui(
    study: StudyFile,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; the first free one from 5000 on.")
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the first page.")] = False,
    overrides: Overrides = None,
) -> None:
    """Serve MLflow's pages on a study until Ctrl-C, and print the links to them."""
    from mixopt.pipelines.views.mlflow.ui import show_ui

    show_ui(study, port, browser=browser)


@group.command("mixopt sync study.yaml")
def sync(
    study: StudyFile,
    overrides: Overrides = None,
) -> None:
    """Rebuild MLflow's view of a study from its ledger."""
    from mixopt.pipelines.study.run import sync_study

    sync_study(study)
