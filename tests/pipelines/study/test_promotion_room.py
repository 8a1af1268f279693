"""Too little room for the full run is said before the search spends anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.session import open_session
from tests.pipelines.whole_study import write_study

pytestmark = pytest.mark.xdist_group("ray")
CORES = os.cpu_count() or 1


def asking(corpus: Corpus, folder: Path, cpus: float) -> Path:
    """A study whose full run wants two processes of so many CPUs."""
    return write_study(
        *(folder / "study.yaml", corpus.path),
        promote={"resources": {"processes": 2, "cpus": cpus}},
        mlflow={"enabled": False},
    )


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("cpus", "what"),
    [
        (CORES, f"the cluster has room for 1 processes of {CORES} CPUs and 0 GPUs, and 2 are"),
        (2 * CORES, f"no node of the cluster has {2 * CORES} CPUs and 0 GPUs"),
        (CORES / 2, ""),
    ],
)
def test_it_is_said_when_the_driver_connects(
    cpus: float,
    what: str,
    text_corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_session(asking(text_corpus, tmp_path, cpus)) as session:
        session.connect()
        session.connect()
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("! for the full run") == bool(what)
    assert what in shown


def test_a_plan_says_it_of_this_machine(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_plan(asking(text_corpus, tmp_path, CORES), 1, measure=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"has room for 1 of the full run's 2 processes of {CORES} CPUs and 0 GPUs" in shown
    show_plan(asking(text_corpus, tmp_path, CORES / 2), 1, measure=False)
    assert "room for" not in capsys.readouterr().out
