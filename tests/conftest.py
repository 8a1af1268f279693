"""Parts that many tests share: a small corpus of real sentences, and one Ray for the whole run.

`make test` spreads the files over processes. Files marked `xdist_group("ray")` are one of the
pieces: they start clusters, which take all cores, and only one of them at a time shall.
"""

from __future__ import annotations

import functools
import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus

# examples share two cores with whole studies: how long one takes says nothing
hypothesis.settings.register_profile("mixopt", deadline=None)
hypothesis.settings.load_profile("mixopt")

# What a script starts in the background ignores Ctrl-C, and so would all that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = {
    "law": "the court holds that section four of the act applies to every party named below",
    "code": "def return if else for while import class self none true lambda yield assert",
    "prose": "she walked along the grey river and thought about the letter he never sent her",
    "notes": "act court river letter return class holds walked yield party section thought",
}


NUMERICS = (
    "test_the_order_of_trials_does_not_matter",
    "test_the_last_bits_of_the_trials_do_not_decide",
)
GROUP = re.compile(r'^pytestmark = \[?pytest\.mark\.xdist_group\("(\w+)"\)', re.MULTILINE)


class FilesAndGroups(LoadScopeScheduling):
    """Pieces of work for test processes: a group, or else a file, whose fixtures are built once.

    A scheduler sees ids of tests, no marks, so the group is read in the file. xdist's own way,
    `--dist loadgroup`, writes it into the ids: from pytest 9.2 on, and up to xdist 3.8.0, that is
    without effect, and silently (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return piece(self.config.rootpath / nodeid.split("::")[0])


@functools.cache
def piece(file: Path) -> str:
    """The group that the test file names, else the file itself."""
    named = GROUP.search(file.read_text())
    return named[1] if named else str(file)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what the conformance suite, which knows no markers of ours, says about rounding."""
    if item.name in NUMERICS:
        item.add_marker(pytest.mark.numerics)


@pytest.hookimpl(optionalhook=True)  # a run without xdist, `-p no:xdist`, knows no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesAndGroups:
    """Hand pieces out in the order of collection; by itself xdist begins with most tests."""
    config.option.loadscopereorder = False
    return FilesAndGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups: where tests are spread, the one with Ray takes longest.

    Raises:
        UsageError: a test belongs to a group, and its file does not say so where it is read.
    """
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        uses_ray = "ray_here" in getattr(item, "fixturenames", ())
        group = mark.args[0] if mark else "ray" if uses_ray else None
        if group and group != piece(item.path):
            line = f'pytestmark = pytest.mark.xdist_group("{group}")'
            raise pytest.UsageError(f"{item.nodeid}: its file lacks the line {line}")
    items.sort(key=lambda item: piece(item.path) == str(item.path))


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
    from mixopt.workers.cluster import connect

    with connect("local"):
        yield
