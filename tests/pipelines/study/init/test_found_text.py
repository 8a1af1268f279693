"""Where there is text and no corpus, `mixopt init` offers a sources file that builds."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
import yaml

from mixopt.corpus.build import build_corpus
from mixopt.pipelines.study.init.answers import Answers
from mixopt.pipelines.study.init.found_text import found_text, sources_text
from mixopt.pipelines.study.init.offer_sources import offer_sources
from tests.conftest import write_sources


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in: two files and a folder of text below `data`, and what is none."""
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path / "data").unlink()
    (tmp_path / "data" / "law").mkdir()
    (tmp_path / "data" / "law.jsonl").rename(tmp_path / "data" / "law" / "first.jsonl")
    packed = gzip.compress((tmp_path / "data" / "prose.jsonl").read_bytes())
    (tmp_path / "data" / "prose.jsonl").unlink()
    (tmp_path / "data" / "grey prose.jsonl.gz").write_bytes(packed)
    for other in ("settings.json", "README.md", ".hidden.jsonl"):
        (tmp_path / other).write_text("{}")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "other.jsonl").write_text("{}")
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_what_lies_side_by_side_is_a_domain_each(here: Path) -> None:
    found = {domain.name: domain for domain in found_text(Path())}
    assert list(found) == ["code", "grey-prose", "law", "notes"]
    assert [domain.path for domain in found.values()] == [
        "data/code.jsonl",
        "data/grey prose.jsonl.gz",
        "data/law",
        "data/notes.jsonl",
    ]
    assert found["code"].bytes == (here / "data" / "code.jsonl").stat().st_size
    assert {domain.files for domain in found.values()} == {1}


def test_a_folder_without_text_has_none(tmp_path: Path) -> None:
    assert found_text(tmp_path) == []


def test_the_sources_file_builds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "yes", "lore", "code, law, notes", "notes")
    assert offer_sources(Answers())
    text = Path("sources.yaml").read_text()
    assert yaml.safe_load(text)["domains"]["notes"] == {"files": "data/notes.jsonl", "target": True}
    Path("sources.yaml").write_text(text.replace("16384", "320"))
    corpus = build_corpus(Path("sources.yaml"), Path("corpus"))
    assert corpus.domains == ("code", "grey-prose", "law")
    assert corpus.targets == ("notes",)


def test_it_is_offered_only_where_nothing_says_what_trains(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch)
    assert not offer_sources(Answers(trainer="elsewhere"))
    assert not offer_sources(Answers(corpus=Path("corpus")))
    typed(monkeypatch, "no")
    assert not offer_sources(Answers())
    assert not Path("sources.yaml").exists()
    Path("sources.yaml").write_text(sources_text(found_text(Path()), ()))
    assert not offer_sources(Answers())
