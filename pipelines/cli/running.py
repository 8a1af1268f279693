"""Commands that define a study and run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import AsJson, Group, Overrides, StudyFile

group = Group("Study: run it")
ResultAsJson = Annotated[
    bool, typer.Option("--json", help="Print at the end what `mixopt status --json` prints.")
]


@group.command(
    "mixopt init study.yaml --corpus corpus",
    'mixopt init study.yaml --trainer "python train.py {job}" --domain web=2B --metric loss=lower',
)
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="STUDY.yaml")],
    corpus: Annotated[
        Path | None, typer.Option(help="Folder made by `mixopt corpus build`; corpus if not given.")
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            metavar="TRAINER",
            help='In place of a corpus: elsewhere, package.module:function, "python t.py {job}".',
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TOKENS", help="What your trainer reads. Repeatable."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=higher", help="What it measures; or lower. Repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented study file for a corpus, or for a trainer of your own."""
    if trainer is None:
        if domain or metric:
            raise typer.BadParameter("--domain and --metric are for --trainer")
        from mixopt.pipelines.study.init import write_study_file

        write_study_file(file, corpus or Path("corpus"), force=force)
        return
    if corpus is not None:
        raise typer.BadParameter("give --corpus, or --trainer with --domain")
    from mixopt.pipelines.study.init_own import write_own_study_file

    write_own_study_file(file, trainer, domain or (), metric or (), force=force)


@group.command("mixopt plan study.yaml", "mixopt plan study.yaml --slots 8 --no-measure")
def plan(
    study: StudyFile,
    slots: Annotated[
        int, typer.Option(min=0, help="Trials at once; 0: as many as cores here.")
    ] = 0,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure", help="Train a few steps here to know how long it takes."
        ),
    ] = True,
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> None:
    """Show what a study will cost, and which constraints bind, before it trains."""
    from mixopt.pipelines.study.plan import show_plan

    show_plan(study, slots, measure=measure, as_json=as_json)


@group.command("mixopt run study.yaml")
def run(
    study: StudyFile,
    as_json: ResultAsJson = False,
    overrides: Overrides = None,
) -> None:
    """Search, select and promote: the whole study, from wherever it stands."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, as_json=as_json)


@group.command("mixopt search study.yaml")
def search(
    study: StudyFile,
    as_json: ResultAsJson = False,
    overrides: Overrides = None,
) -> None:
    """Train the design and the proposer's rounds."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="search", as_json=as_json)


@group.command("mixopt select study.yaml")
def select(
    study: StudyFile,
    as_json: ResultAsJson = False,
    overrides: Overrides = None,
) -> None:
    """Compare the finalists with fresh seeds and decide (after the search)."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="select", as_json=as_json)


@group.command("mixopt promote study.yaml")
def promote(
    study: StudyFile,
    as_json: ResultAsJson = False,
    overrides: Overrides = None,
) -> None:
    """Train the upcycled MoE on the selected mixture (after selection)."""
    from mixopt.pipelines.study.run import run_study

    run_study(study, step="promote", as_json=as_json)
