"""Commands that a newcomer begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import AsJson, Group, Overrides

group = Group("Start here")


@group.command("mixopt demo", "mixopt demo /tmp/demo")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("demo"),
) -> None:
    """Run the main job on text that is on this machine: a few minutes on two cores."""
    from mixopt.pipelines.study.demo import run_demo

    run_demo(folder)


@group.command("mixopt doctor", "mixopt doctor study.yaml", "mixopt doctor study.yaml --json")
def doctor(
    study: Annotated[
        Path | None,
        typer.Argument(
            help="A study whose folder and cluster are looked at.", metavar="STUDY.yaml"
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, Ray, MLflow and storage; ends with 1 if something is broken."""
    from mixopt.pipelines.doctor.examine import examine

    if not examine(study, as_json=as_json):
        raise typer.Exit(1)
