"""`mixopt corpus`: build a corpus from sources or from what is installed, and describe it.

mixopt corpus build sources.yaml corpus
mixopt corpus from-environment corpus
mixopt corpus describe corpus --verify
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from mixopt.corpus.domain import Progress
    from mixopt.corpus.shards import Corpus


def build_from_sources(sources: Path, out: Path, *, as_json: bool = False) -> None:
    """Build the corpus that the file `sources` describes in `out`, and show it.

    Raises:
        CorpusError: the file or a source of it cannot be read.
    """
    from mixopt.corpus.build import build_corpus

    with _progress() as progress:
        corpus = build_corpus(sources, out, progress)
    _show(corpus, as_json=as_json)


def build_from_environment(
    out: Path, megabytes: float, vocabulary: int, *, as_json: bool = False
) -> None:
    """Build a corpus in `out` from text that mixopt's dependencies bring along, and show it.

    Args:
        out: folder of the corpus.
        megabytes: of text per domain, at most.
        vocabulary: tokens of the tokenizer.
        as_json: print one JSON object instead of the table; so in the other functions here.

    Raises:
        CorpusError: there is too little text.
    """
    from mixopt.corpus.environment import corpus_from_environment

    with _progress() as progress:
        corpus = corpus_from_environment(out, megabytes, vocabulary, progress)
    _show(corpus, as_json=as_json)


def describe_corpus(folder: Path, *, verify: bool, as_json: bool = False) -> None:
    """Show the corpus in `folder`, every file compared with its hash first if `verify`.

    Raises:
        CorpusError: it is absent or broken.
    """
    from mixopt.corpus.shards import Corpus

    corpus = Corpus.open(folder)
    if verify:
        corpus.verify()
    _show(corpus, verified=verify, as_json=as_json)


def _show(corpus: Corpus, *, verified: bool = False, as_json: bool = False) -> None:
    from mixopt.pipelines.views.console import make_console
    from mixopt.pipelines.views.json_output import print_json

    if as_json:
        print_json(corpus_values(corpus) | {"verified": verified})
        return
    console = make_console()
    console.print(corpus_table(corpus))
    tokenizer, checked = corpus.manifest.tokenizer, ", every file verified" if verified else ""
    console.print(
        f"\ncorpus {corpus.hash[:12]}{checked}; tokenizer {tokenizer.hash[:12]} of "
        f"{tokenizer.vocab_size:,} tokens, their bytes {tokenizer.token_bytes}"
    )
    for name, domain in corpus.manifest.domains.items():
        if domain.skipped:
            console.print(f"{name}: first skipped: {domain.first_skipped}", soft_wrap=True)
        if not domain.validation.tokens:
            console.print(f"{name}: no validation loss, because no document was held out")


def corpus_values(corpus: Corpus) -> dict[str, Any]:
    """What the table of a corpus holds, as JSON-able values; `natural` is null of no mixture's."""
    tokenizer, natural = corpus.manifest.tokenizer, corpus.natural.as_dict()
    return {
        "folder": str(corpus.path),
        "hash": corpus.hash,
        "tokenizer": {
            "hash": tokenizer.hash,
            "vocab_size": tokenizer.vocab_size,
            "token_bytes": tokenizer.token_bytes,
        },
        "domains": {
            name: {
                "documents": domain.documents,
                "bytes": domain.bytes,
                "train_tokens": domain.train.tokens,
                "validation_tokens": domain.validation.tokens,
                "natural": natural.get(name),
                "duplicates": domain.duplicates,
                "skipped": domain.skipped,
                "first_skipped": domain.first_skipped,
                "role": domain.role,
            }
            for name, domain in corpus.manifest.domains.items()
        },
    }


def corpus_table(corpus: Corpus) -> Table:
    """A table of a corpus' domains, a row each; under 100 columns wide with usual names."""
    from rich.table import Table

    from mixopt.core.formatting import count

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", overflow="fold")
    for column in ("docs", "bytes", "train tok.", "valid. tok.", "natural", "dupl.", "skipped"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("role")
    natural = corpus.natural.as_dict()
    for name, domain in corpus.manifest.domains.items():
        table.add_row(
            name,
            f"{domain.documents:,}",
            count(domain.bytes),
            count(domain.train.tokens),
            count(domain.validation.tokens),
            f"{natural[name]:.4f}" if name in natural else "–",
            f"{domain.duplicates:,}",
            f"{domain.skipped:,}",
            domain.role,
        )
    return table


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal, one for each stage of each domain; nothing elsewhere."""
    from rich import progress as bars

    from mixopt.pipelines.views.console import make_error_console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[amount]}", justify="right", markup=False),
        bars.TimeRemainingColumn(),
    )
    tasks: dict[tuple[str, str], bars.TaskID] = {}
    console = make_error_console()
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as shown:

        def show(stage: str, domain: str, done: int, total: int) -> None:
            key = (stage, domain)
            if key not in tasks:
                tasks[key] = shown.add_task(f"{stage} {domain}", total=total, amount="")
            amount = f"{done / 1e6:,.1f} / {total / 1e6:,.1f} MB" if stage != "gather" else ""
            shown.update(tasks[key], completed=done, total=total, amount=amount)

        yield show
