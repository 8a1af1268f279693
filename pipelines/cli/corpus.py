"""The commands of `mixopt corpus`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import AsJson, Group

group = Group(
    "Corpus",
    help="Build and describe a corpus: text in, tokenized domains out.",
    examples=("mixopt corpus build sources.yaml corpus", "mixopt corpus describe corpus"),
)
Out = Annotated[Path, typer.Argument(help="Folder of the corpus.", metavar="OUT")]


@group.command("mixopt corpus build sources.yaml corpus")
def build(
    sources: Annotated[
        Path, typer.Argument(help="File that names the domains' files.", metavar="SOURCES.yaml")
    ],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Build a corpus from a sources file; only changed domains are built again."""
    from mixopt.pipelines.corpus import build_from_sources

    build_from_sources(sources, out, as_json=as_json)


@group.command(
    "mixopt corpus from-environment corpus",
    "mixopt corpus from-environment corpus --megabytes 1 --vocabulary 1024",
    name="from-environment",
)
def from_environment(
    out: Out,
    megabytes: Annotated[float, typer.Option(help="Text per domain, at most.")] = 3.0,
    vocabulary: Annotated[
        int, typer.Option(min=257, max=1 << 20, help="Tokens of the tokenizer.")
    ] = 2048,
    as_json: AsJson = False,
) -> None:
    """Build a corpus from text that mixopt's dependencies bring along."""
    from mixopt.pipelines.corpus import build_from_environment

    build_from_environment(out, megabytes, vocabulary, as_json=as_json)


@group.command("mixopt corpus describe corpus", "mixopt corpus describe corpus --verify")
def describe(
    out: Out,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its hash.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a corpus: what each domain holds, and what was left out."""
    from mixopt.pipelines.corpus import describe_corpus

    describe_corpus(out, verify=verify, as_json=as_json)
