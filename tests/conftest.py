"""Parts that many tests share: a small corpus of real sentences, and one Ray for the whole run.

`make test` spreads the files over processes. Files marked `xdist_group("ray")` are one of the
pieces: they start clusters, which take all cores, and only one of them at a time shall.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus

WORDS = {
    "law": "the court holds that section four of the act applies to every party named below",
    "code": "def return if else for while import class self none true lambda yield assert",
    "prose": "she walked along the grey river and thought about the letter he never sent her",
    "notes": "act court river letter return class holds walked yield party section thought",
}


class FilesAndGroups(LoadGroupScheduling):
    """Pieces of work for test processes: a group, or else a file, whose fixtures are built once."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).split("::")[0]


@pytest.hookimpl(optionalhook=True)  # a run without xdist, `-p no:xdist`, knows no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesAndGroups:
    """Hand pieces out in the order of collection; by itself xdist begins with most tests."""
    config.option.loadscopereorder = False
    return FilesAndGroups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the groups where tests are spread: the one with Ray takes longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


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
