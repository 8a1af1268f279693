"""What docs/python.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mixopt.corpus.shards import Corpus
from tests.pipelines.finished_study import finished_study
from tests.pipelines.made_runs import tables

pytestmark = pytest.mark.xdist_group("ray")

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
RUNS = "mixopt.Study("


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_its_blocks_run_on_a_finished_study_and_on_finished_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_study(tmp_path)
    ratios, metrics = tables(tmp_path, metrics=("prose", "code"))
    ratios.rename(tmp_path / "ratios.csv")
    metrics.rename(tmp_path / "metrics.csv")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks():
        if RUNS not in block:
            exec(block, names)
    assert names["found"].mixture.domains == tuple(names["study"].space.domains)
    assert names["mixture"]["web"] == 0.75
    assert not names["space"].contains(names["mixture"])


@pytest.mark.slow
def test_its_study_runs(
    text_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").symlink_to(text_corpus.path)
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks() if RUNS in block)
    names: dict[str, Any] = {}
    exec(f"import mixopt\n{block}", names)
    study = names["first"].open()
    assert study.trials["state"].unique().to_list() == ["complete"]
    assert len(study.trials) == 4 + 2 + 2
    assert (tmp_path / "first.yaml").exists()
