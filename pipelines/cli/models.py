"""Commands that write mixtures and models for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import Group, Overrides, StudyFile

group = Group("Models")


@group.command(
    "mixopt export study.yaml --mixture megatron", "mixopt export study.yaml --model moe"
)
def export(
    study: StudyFile,
    mixture: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format of the mixture, such as megatron or json."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; else it is printed.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=PATH", help="Where the trainer finds a domain. Repeatable."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="New folder for the model, as transformers loads it."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write the chosen mixture for another trainer, or the promoted model for other tools."""
    from mixopt.pipelines.offline.outputs import FILE, writable
    from mixopt.pipelines.study.export_mixture import write_mixture
    from mixopt.pipelines.study.export_model import export_model

    if mixture is None and model is None:
        raise typer.BadParameter("give --mixture FORMAT or --model OUT")
    if out is not None:
        writable(out, FILE)
    if mixture is not None:
        write_mixture(study, mixture, out, path or ())
    if model is not None:
        export_model(study, model)


@group.command("mixopt upcycle spec.yaml moe --dry-run", "mixopt upcycle spec.yaml moe")
def upcycle(
    spec: Annotated[
        Path, typer.Argument(help="File that names the models and the method.", metavar="SPEC.yaml")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for models fetched from URLs; beside OUT if not given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the receipt (or the plan) as one JSON object.")
    ] = False,
) -> None:
    """Turn dense checkpoints into a mixture of experts in the Hugging Face layout."""
    from mixopt.pipelines.upcycling.upcycle import upcycle as upcycle_folders

    upcycle_folders(spec, out, cache=cache, dry_run=dry_run, as_json=as_json)
