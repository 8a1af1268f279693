"""Text in a folder without a corpus: which domains it could be, and the sources file for them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mixopt.core.formatting import count
from mixopt.pipelines.study.init.sections import quoted

ENDINGS = (".jsonl", ".ndjson", ".parquet")  # .txt and .json are as often something else
COMPRESSED = (".gz", ".zst")
DEEPEST = 4  # folders below the first
MOST_FILES = 20_000
SOURCES = Path("sources.yaml")


@dataclass(frozen=True)
class FoundDomain:
    """Files that could be a domain.

    Attributes:
        name: of the file or the folder, as domains are named.
        path: of it, relative to the folder that was looked through.
        files: how many.
        bytes: of them together, as they are stored.
    """

    name: str
    path: str
    files: int
    bytes: int


def found_text(folder: Path) -> list[FoundDomain]:
    """Domains by name: what lies side by side below the deepest folder that holds all text.

    Hidden files and folders are passed over.
    """
    paths = list(_text_files(folder))
    if not paths:
        return []
    top = Path(os.path.commonpath([path.parent for path in paths]))
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        groups[top / path.relative_to(top).parts[0]].append(path)
    found: dict[str, FoundDomain] = {}
    for place, inside in sorted(groups.items()):
        name = _name(place)
        while name in found:
            name += "-2"
        sizes = [path.stat().st_size for path in inside]
        found[name] = FoundDomain(
            name, place.relative_to(folder).as_posix(), len(inside), sum(sizes)
        )
    return list(found.values())


def text_table(found: Sequence[FoundDomain]) -> Table:
    """A row per domain."""
    table = Table(box=None)
    for column in ("domain", "files", "bytes", "where"):
        table.add_column(column, justify="right" if column in ("files", "bytes") else "left")
    for domain in found:
        table.add_row(domain.name, str(domain.files), count(domain.bytes), domain.path)
    return table


def sources_text(found: Sequence[FoundDomain], targets: Collection[str]) -> str:
    """The sources file of these domains.

    Args:
        found: the domains.
        targets: names of those that are for validation alone.
    """
    rows = []
    for domain in found:
        rows += [f"  {quoted(domain.name)}:", f"    files: {quoted(domain.path)}"]
        if domain.name in targets:
            rows.append("    target: true         # validation only: never trained on")
    return "\n".join(
        (
            "# Where the text of each domain is; all settings: docs/corpus.md",
            "#   mixopt corpus build sources.yaml corpus",
            "tokenizer: {vocabulary: 16384}  # trained on this text; or  file: tokenizer.json",
            "domains:",
            *rows,
            "",
        )
    )


def _text_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for parent, folders, names in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = visible if depth < DEEPEST else []
        for name in sorted(names):
            bare = name.removesuffix(COMPRESSED[0]).removesuffix(COMPRESSED[1])
            if not name.startswith(".") and bare.endswith(ENDINGS):
                seen += 1
                if seen > MOST_FILES:
                    return
                yield Path(parent) / name


def _name(place: Path) -> str:
    bare = re.sub(r"(\.(jsonl|ndjson|parquet))?(\.(gz|zst))?$", "", place.name)
    return re.sub(r"[^A-Za-z0-9._-]", "-", bare).lstrip("._-") or "text"
