"""Commands of studies that are trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import AsJson, Group, Overrides, StudyFile

group = Group("Study: trained elsewhere")


@group.command("mixopt ask study.yaml -n 8 --out next.csv", "mixopt ask study.yaml --again")
def ask(
    study: StudyFile,
    most: Annotated[int, typer.Option("-n", min=1, help="How many trials at most.")] = 8,
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .json file; else they are printed.")
    ] = None,
    again: Annotated[
        bool, typer.Option(help="Those first that were handed out and not told.")
    ] = False,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Hand out trials of a study whose trainer is elsewhere."""
    from mixopt.pipelines.study.elsewhere import ask_trials

    ask_trials(study, most, out, again=again, as_json=as_json)


@group.command("mixopt tell study.yaml next.csv", "mixopt tell study.yaml corrected.csv --replace")
def tell(
    study: StudyFile,
    results: Annotated[Path, typer.Argument(help="What `ask` wrote, with metrics.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Correct what was told before; it is kept as well.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Record results of trials that `ask` handed out."""
    from mixopt.pipelines.study.tell import tell_results

    tell_results(study, results, replace=replace)
