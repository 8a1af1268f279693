"""`mixopt export STUDY --mixture FORMAT` writes the mixture of the verdict, nothing before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mixopt
from mixopt.core.errors import FileError, MixoptError, StudyError
from mixopt.pipelines.study.export_mixture import write_mixture
from mixopt.study.mixture_formats import FORMATS
from mixopt.study.records import read_verdict
from mixopt.study.settings import Study
from tests.pipelines.finished_study import TOKENS, finished_study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("study"))


def test_the_verdicts_mixture_is_printed_with_tokens_and_epochs(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mixture(study.path, "json", None)
    printed = capsys.readouterr()
    values, verdict = json.loads(printed.out), read_verdict(study.home)
    assert verdict is not None
    assert {n: d["weight"] for n, d in values["domains"].items()} == verdict.mixture.as_dict()
    assert sum(d["tokens"] for d in values["domains"].values()) == 600_000  # promote.tokens
    for name, domain in values["domains"].items():
        assert domain["epochs"] == pytest.approx(domain["tokens"] / TOKENS[name])
    assert "'found' of tiny for 600k tokens" in " ".join(printed.err.split())


def test_a_file_is_written_and_missing_paths_are_named(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "blend.txt"
    write_mixture(study.path, "megatron", out, ["docstrings=/data/docstrings"])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "0.5 /data/docstrings\n" in out.read_text()
    assert "PATH_OF_licences" in printed.err
    assert "PATH_OF_docstrings" not in printed.err


def test_before_a_verdict_there_is_nothing_to_export(tmp_path: Path) -> None:
    unjudged = write_study(tmp_path)
    with pytest.raises(StudyError, match="no verdict yet") as refused:
        write_mixture(unjudged.path, "json", tmp_path / "out.json")
    assert "mixopt select" in refused.value.hint
    assert not (tmp_path / "out.json").exists()


def test_a_study_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    unjudged = write_study(tmp_path)
    (unjudged.home / "study.json").unlink()
    with pytest.raises(StudyError, match="has not begun"):
        write_mixture(unjudged.path, "json", None)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["docstring=/data"], "Did you mean 'docstrings'"),
        (["/data/docstrings"], "Write DOMAIN=PATH"),
        (["docstrings="], "Write DOMAIN=PATH"),
    ],
)
def test_a_path_of_no_domain_is_refused(study: Study, paths: list[str], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        write_mixture(study.path, "megatron", None, paths)


def test_nothing_is_half_written(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        write_mixture(study.path, "json", tmp_path / "file" / "out.json")


def test_without_its_corpus_tokens_are_unknown(study: Study, tmp_path: Path) -> None:
    moved = study.corpus_path.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(MixoptError, match="no finished corpus"):
            write_mixture(study.path, "json", None)
    finally:
        moved.rename(study.corpus_path)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_python_gives_the_same_text(
    study: Study, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mixture(study.path, format, None)
    assert mixopt.open_study(study.path).export_mixture(format) == capsys.readouterr().out
