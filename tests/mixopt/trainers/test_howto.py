"""The scripts of docs/trainers.md train, report, are killed and go on."""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.trials import Fidelity
from mixopt.testing.trainers import Interrupted, TrainerConformance
from mixopt.trainers.job import Domain, TrainingJob

DOCS = Path(__file__).parents[3] / "docs" / "trainers"
TITAN = "-m torch.distributed.run --standalone --nproc-per-node 1 titan.py --config titan.toml"
SCRIPTS: dict[str, dict[str, Any]] = {
    "plain": {"command": f"{sys.executable} plain.py {{job}}"},
    "titan": {"command": f"{sys.executable} {TITAN} --job {{job}}", "files": ["titan.toml"]},
}
TOKENS = 21 * 512


def write_texts(folder: Path) -> dict[str, Domain]:
    """Two domains of text."""
    folder.mkdir()
    domains = {}
    for name, letters in (("code", "(){}=;xy "), ("web", "etaoin shrdlu")):
        text = "".join(random.Random(name).choices(letters, k=20_000))
        (folder / f"{name}.txt").write_text(text)
        domains[name] = Domain(18_000, str(folder / f"{name}.txt"))
    return domains


@pytest.mark.parametrize("name", ["plain", pytest.param("titan", marks=pytest.mark.slow)])
def test_a_script_of_the_page_is_killed_and_goes_on_to_its_end(tmp_path: Path, name: str) -> None:
    suite = TrainerConformance()
    suite.trainer, suite.folder = SCRIPTS[name], DOCS
    domains = write_texts(tmp_path / "texts")
    job = TrainingJob(
        study="how-to",
        trial="0",
        mixture={"code": 0.25, "web": 0.75},
        tokens=TOKENS,
        seed=1,
        fidelity=Fidelity("proxy", 0, TOKENS),
        folder=str(tmp_path / "killed"),
        metrics=("loss/code", "loss/web"),
        domains=domains,
        role="promote",
    )
    with pytest.raises(Interrupted):
        suite.outcome(job, interrupt=True)
    result = suite.result(job)
    assert len(result.curve) >= 3
    assert result.environment["verified"] == "mixture, tokens, seed"
    assert result.environment["checkpoint"] == "model.pt"
    assert result.metrics["loss/web"] < result.curve[0].metrics["loss/web"]
    if name == "plain":  # torchrun takes too long to start for a third time
        whole = suite.result(dataclasses.replace(job, folder=str(tmp_path / "whole")))
        assert whole.metrics == result.metrics


def test_the_smallest_script_answers_a_job(tmp_path: Path) -> None:
    suite = TrainerConformance()
    suite.trainer, suite.folder = {"command": f"{sys.executable} smallest.py {{job}}"}, DOCS
    job = TrainingJob(
        study="how-to",
        trial="0",
        mixture={"code": 0.25, "web": 0.75},
        tokens=TOKENS,
        seed=1,
        fidelity=Fidelity("proxy", 0, TOKENS),
        folder=str(tmp_path / "smallest"),
        metrics=("accuracy/arc",),
    )
    result = suite.result(job)
    assert result.environment["verified"] == "mixture, tokens, seed"
    assert 0.5 < result.metrics["accuracy/arc"] < 0.6


def test_the_page_shows_the_scripts_as_they_are() -> None:
    page = (DOCS.parent / "trainers.md").read_text()
    for file in DOCS.iterdir():
        if file.is_file():
            assert f"\n{file.read_text()}```" in page, f"docs/trainers.md does not show {file.name}"
