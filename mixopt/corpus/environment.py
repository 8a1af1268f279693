"""A corpus from what is installed: for a first study, a demonstration, and our own tests."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from mixopt.core.errors import CorpusError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.documents import document_hash
from mixopt.corpus.domain import Progress
from mixopt.corpus.harvest import harvest, packages
from mixopt.corpus.manifest import digest
from mixopt.corpus.shards import Corpus
from mixopt.io.files import write_bytes

HARVEST = 1  # raised when the same packages would give other documents
TARGET = "descriptions"
VALIDATION = 0.1  # of some hundred documents a domain, a smaller share is a handful
SAMPLE_MEGABYTES = 1.0  # per domain: more does not move a vocabulary of a few thousand


def corpus_from_environment(
    out: Path, megabytes: float, vocabulary: int, progress: Progress | None = None
) -> Corpus:
    """Gathers text that mixopt's dependencies brought along, and builds a corpus of it.

    Training domains `python`, `docstrings`, `headers`, `licences`, `web`, `arithmetic`, and the
    target `descriptions`. The same package versions give the same corpus in a new folder.

    Args:
        out: folder of the corpus; the text is kept in `out/sources`.
        megabytes: of text per domain, at most.
        vocabulary: tokens of the tokenizer.
        progress: called with the progress.

    Raises:
        CorpusError: the folder is held by another build or cannot be written.
    """
    if not 0 < megabytes < math.inf:
        raise CorpusError(f"{megabytes} megabytes hold no text", where="--megabytes")
    folder = Path(out) / "sources"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _gather(folder, megabytes, vocabulary, progress)
    except OSError as error:
        raise CorpusError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    return build_corpus(folder / "sources.yaml", Path(out), progress)


def _gather(folder: Path, megabytes: float, vocabulary: int, progress: Progress | None) -> None:
    """Writes the text and its sources file, unless these packages' text is there."""
    versions = {name: _version(name) for name, _ in packages()}
    state = digest([HARVEST, sys.version, versions, megabytes]).encode()
    marker = folder / "harvest"
    if not (marker.is_file() and marker.read_bytes() == state):
        marker.unlink(missing_ok=True)
        limit = int(megabytes * 1e6)
        domains = harvest(limit)
        for number, (name, documents) in enumerate(domains.items()):
            write_bytes(folder / f"{name}.jsonl", _lines(documents))
            if progress:
                progress("gather", name, number + 1, len(domains))
        write_bytes(marker, state)
    text = _sources_file(sorted(p.stem for p in folder.glob("*.jsonl")), vocabulary)
    if not (folder / "sources.yaml").is_file() or (folder / "sources.yaml").read_text() != text:
        write_bytes(folder / "sources.yaml", text.encode())


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _lines(documents: Iterable[str]) -> bytes:
    """JSON lines in the order of the documents' hashes: any stretch is like the whole."""
    ordered = sorted(documents, key=lambda text: (document_hash(text), text))
    return "".join(json.dumps({"text": text}) + "\n" for text in ordered).encode()


def _sources_file(names: list[str], vocabulary: int) -> str:
    rows = [
        "# Written by `mixopt corpus from-environment`.",
        f"tokenizer: {{vocabulary: {vocabulary}, sample_megabytes: {SAMPLE_MEGABYTES}}}",
        f"validation: {VALIDATION}",
        "domains:",
    ]
    for name in names:
        target = ", target: true" if name == TARGET else ""
        rows.append(f"  {name}: {{files: {name}.jsonl{target}}}")
    return "\n".join(rows) + "\n"
