"""A corpus is compared with its checksums once per study and machine."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from mixopt.core.errors import CorpusError
from mixopt.corpus.shards import Corpus
from mixopt.corpus.verified import verify_once


@pytest.fixture
def corpus(text_corpus: Corpus, tmp_path: Path) -> Corpus:
    """A corpus of its own to damage."""
    shutil.copytree(text_corpus.path, tmp_path / "copy")
    return Corpus.open(tmp_path / "copy")


def flip(corpus: Corpus) -> Path:
    """Flip a bit of a shard as a failing disk does, which changes no time; returns the shard."""
    shard = corpus.path / corpus.manifest.domains["law"].train.path
    before, contents = shard.stat(), bytearray(shard.read_bytes())
    contents[100] ^= 1
    shard.write_bytes(contents)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    return shard


def test_a_machine_reads_the_corpus_once(corpus: Corpus, tmp_path: Path) -> None:
    verify_once(corpus, tmp_path / "verified")
    flip(corpus)
    verify_once(corpus, tmp_path / "verified")  # remembered, so nothing is read


def test_another_machine_reads_it_for_itself(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_once(corpus, tmp_path / "verified")
    shard = flip(corpus)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    with pytest.raises(CorpusError, match="its hash differs") as caught:
        verify_once(corpus, tmp_path / "verified")
    assert caught.value.where == str(shard)


def test_another_study_reads_it_for_itself(corpus: Corpus, tmp_path: Path) -> None:
    verify_once(corpus, tmp_path / "verified")
    flip(corpus)
    with pytest.raises(CorpusError, match="its hash differs"):
        verify_once(corpus, tmp_path / "another" / "verified")


def test_a_file_that_was_written_since_is_read_again(corpus: Corpus, tmp_path: Path) -> None:
    verify_once(corpus, tmp_path / "verified")
    os.utime(flip(corpus))
    with pytest.raises(CorpusError, match="its hash differs"):
        verify_once(corpus, tmp_path / "verified")


def test_what_was_found_broken_is_not_remembered_as_whole(corpus: Corpus, tmp_path: Path) -> None:
    flip(corpus)
    for _ in range(2):
        with pytest.raises(CorpusError, match="its hash differs"):
            verify_once(corpus, tmp_path / "verified")


def test_a_record_that_was_cut_does_not_count(corpus: Corpus, tmp_path: Path) -> None:
    verify_once(corpus, tmp_path / "verified")
    (record,) = (tmp_path / "verified").glob("*.json")
    record.write_text(record.read_text()[:20])
    flip(corpus)
    with pytest.raises(CorpusError, match="its hash differs"):
        verify_once(corpus, tmp_path / "verified")


def test_nothing_is_written_into_the_corpus(corpus: Corpus, tmp_path: Path) -> None:
    before = sorted(corpus.path.rglob("*"))
    verify_once(corpus, tmp_path / "verified")
    assert sorted(corpus.path.rglob("*")) == before
