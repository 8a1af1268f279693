"""Commands that a newcomer begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import Group

group = Group("Start here")


@group.command("mixopt demo", "mixopt demo /tmp/demo")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("demo"),
) -> None:
    """Run the main job on text that is on this machine: a few minutes on two cores."""
    from mixopt.pipelines.study.demo import run_demo

    run_demo(folder)
