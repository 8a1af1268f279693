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
    "mixopt init",
    "mixopt init study.yaml --corpus corpus --target exam --budget 20B --no-promote",
    'mixopt init study.yaml --trainer "python train.py {job}" --domain web=2B --metric loss=lower',
)
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="STUDY.yaml")] = Path(
        "study.yaml"
    ),
    corpus: Annotated[
        Path | None, typer.Option(help="Folder made by `mixopt corpus build`; corpus if not given.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="Validation domain to be good for; the corpus' targets, or all. Repeatable.",
        ),
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
    budget: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Of the run that the mixture is for, such as 20B."),
    ] = None,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote",
            help="Whether that run is trained too: upcycled by mixopt, or by your trainer.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="MIXTURE",
            help="What is to be beaten: natural, uniform, FILE.csv, FILE.json, web=0.6,code=0.4.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=3, help="Mixtures trained before the first is proposed.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of Ray: auto, local, or such as ray://head:10001."),
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="Cores of each training.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each training.")] = None,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="On a terminal, ask what no option answers.")
    ] = True,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented study file; on a terminal, what no option answers is asked."""
    from mixopt.pipelines.study.init.answers import Answers
    from mixopt.pipelines.study.init.write import init_study

    answers = Answers(
        corpus=corpus,
        targets=target or (),
        trainer=trainer,
        domains=domain or (),
        metrics=metric or (),
        budget=budget,
        promote=promote,
        baseline=baseline,
        trials=trials,
        cluster=cluster,
        cpus=cpus,
        gpus=gpus,
    )
    init_study(file, answers, ask=ask, force=force)


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
