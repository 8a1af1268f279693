"""A build that is killed at any moment leaves no corpus that lies; two builds never mix."""

import json
import subprocess
import sys
import time

import pytest

from mixopt.core.errors import CorpusError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus

BUILD = """
import sys
from mixopt.corpus.build import build_corpus

def progress(stage, domain, done, total):
    print(stage, domain, flush=True)
    sys.stdin.readline()  # goes on when told, so that the test chooses where it is killed

build_corpus(sys.argv[1], sys.argv[2], progress)
"""


@pytest.fixture
def sources(tmp_path):
    """Three domains, one of them a target, that share some documents."""
    for number, name in enumerate(("a", "b", "target")):
        shared = [f"shared {n}" for n in range(4)]
        rows = [f"{name} document {n} " + "word " * 20 for n in range(40)] + shared[number:]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": r}) for r in rows))
    path = tmp_path / "sources.yaml"
    path.write_text(
        "tokenizer: {vocabulary: 280}\nvalidation: 0.2\ndomains:\n"
        "  a: {files: a.jsonl}\n  b: {files: b.jsonl}\n"
        "  target: {files: target.jsonl, target: true}\n"
    )
    return path


class Builder:
    """A build in a process of its own that stops at every report of progress."""

    def __init__(self, sources, out):
        self._process = subprocess.Popen(
            [sys.executable, "-c", BUILD, str(sources), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def advance(self, until):
        """Lets it go on until it reports `until`, and leaves it standing there."""
        while line := self._process.stdout.readline():
            if line.strip() == until:
                return
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        raise AssertionError(f"the build ended before {until!r}")

    def kill(self):
        self._process.kill()
        self._process.communicate()


MOMENTS = ["tokenizer a", "tokenizer b", "tokens target", "tokens a", "tokens b"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_first_build_leaves_no_corpus_and_the_next_one_completes_it(
    sources, tmp_path, moment
):
    builder = Builder(sources, tmp_path / "out")
    builder.advance(moment)
    builder.kill()
    with pytest.raises(CorpusError, match="no finished corpus is here"):
        Corpus.open(tmp_path / "out")
    read = []
    resumed = build_corpus(sources, tmp_path / "out", lambda *report: read.append(report[:2]))
    assert resumed.hash == build_corpus(sources, tmp_path / "whole").hash
    resumed.verify()
    assert not list((tmp_path / "out").rglob(".building-*"))
    finished = {"tokens a": {"target"}, "tokens b": {"target", "a"}}.get(moment, set())
    assert {domain for stage, domain in read if stage == "tokens"} == {
        "a",
        "b",
        "target",
    } - finished


def test_a_killed_rebuild_leaves_the_old_corpus(sources, tmp_path):
    old = build_corpus(sources, tmp_path / "out")
    for name in ("a", "target"):
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.write('\n{"text": "one more"}')
    builder = Builder(sources, tmp_path / "out")
    builder.advance("tokens a")
    builder.kill()
    kept = Corpus.open(tmp_path / "out")
    kept.verify()
    assert kept.hash == old.hash
    assert build_corpus(sources, tmp_path / "out").hash != old.hash


def test_kills_at_random_moments_never_leave_half_a_corpus(sources, tmp_path):
    whole = build_corpus(sources, tmp_path / "whole").hash
    program = (
        "import sys; from mixopt.corpus.build import build_corpus; build_corpus(*sys.argv[1:])"
    )
    for delay in (0.3, 0.4, 0.5, 0.6):
        command = [sys.executable, "-c", program, str(sources), str(tmp_path / "out")]
        process = subprocess.Popen(command)
        time.sleep(delay)
        process.kill()
        process.wait()
        try:
            found = Corpus.open(tmp_path / "out")
        except CorpusError as error:
            assert "no finished corpus" in str(error)  # noqa: PT017  either outcome is right
        else:
            found.verify()
            assert found.hash == whole
    assert build_corpus(sources, tmp_path / "out").hash == whole


def test_the_second_of_two_builds_refuses_and_names_the_first(sources, tmp_path):
    builder = Builder(sources, tmp_path / "out")
    builder.advance("tokens a")
    try:
        with pytest.raises(CorpusError, match=r"the corpus is held by process \d+ on "):
            build_corpus(sources, tmp_path / "out")
    finally:
        builder.kill()
    build_corpus(sources, tmp_path / "out").verify()


def test_input_that_changes_while_it_is_read_is_noticed(sources, tmp_path):
    def change(stage, domain, done, total):
        if (stage, domain) == ("tokens", "b"):
            (tmp_path / "a.jsonl").write_text('{"text": "another"}')

    with pytest.raises(CorpusError, match="a: its files changed while they were read"):
        build_corpus(sources, tmp_path / "out", change)
