"""Parts that many tests share: a small corpus of real sentences, and one Ray for the whole run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus

WORDS = {
    "law": "the court holds that section four of the act applies to every party named below",
    "code": "def return if else for while import class self none true lambda yield assert",
    "prose": "she walked along the grey river and thought about the letter he never sent her",
    "notes": "act court river letter return class holds walked yield party section thought",
}


def write_sources(folder: Path, documents: int = 400, seed: int = 0) -> Path:
    """JSONL files for three training domains and a target that mixes their words."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for name, words in WORDS.items():
        lines = []
        for number in range(documents if name != "notes" else documents // 4):
            picked = rng.choices(words.split(), k=rng.randint(20, 60))
            lines.append(json.dumps({"text": f"{name} {number}: " + " ".join(picked)}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"  {name}: {{files: {name}.jsonl}}" for name in WORDS if name != "notes"]
    rows.append("  notes: {files: notes.jsonl, target: true}")
    sources = folder / "sources.yaml"
    sources.write_text("tokenizer: {vocabulary: 320}\ndomains:\n" + "\n".join(rows) + "\n")
    return sources


@pytest.fixture(scope="session")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of a few hundred short documents in three domains and a target."""
    folder = tmp_path_factory.mktemp("corpus")
    return build_corpus(write_sources(folder / "text"), folder / "built")


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray, started on this machine for the tests that train."""
    from workers.cluster import connect

    with connect("local"):
        yield
