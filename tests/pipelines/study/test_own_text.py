"""A stranger's own text, with the commands of the README and nothing else: text in, MoE out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import WORDS, write_sources
from tests.pipelines.whole_study import MODEL, RECIPE, ROOT, STEP, mixopt, succeeded

pytestmark = pytest.mark.xdist_group("ray")

COMMANDS = [
    ["corpus", "build", "sources.yaml", "corpus"],
    ["corpus", "describe", "corpus"],
    ["init", "study.yaml", "--corpus", "corpus"],
    ["plan", "study.yaml"],
    ["run", "study.yaml"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_readme_names_the_command(command: list[str]) -> None:
    assert re.search(rf"^\s*mixopt {' '.join(command)}\b", (ROOT / "README.md").read_text(), re.M)


@pytest.mark.slow
def test_own_text_becomes_a_corpus_a_plan_and_a_promoted_model(tmp_path: Path) -> None:
    write_sources(tmp_path, documents=200)

    def follow(number: int) -> str:
        return succeeded(mixopt(*COMMANDS[number], cwd=tmp_path)).stdout

    built, described = follow(0), follow(1)
    for domain in WORDS:
        assert domain in built
        assert domain in described
    assert "mixopt plan study.yaml" in follow(2)
    shrink(tmp_path / "study.yaml")
    planned = follow(3)
    assert "upcycled model" in planned
    assert max(map(len, planned.splitlines())) <= 100
    assert not (tmp_path / "study").exists()  # a plan leaves nothing behind
    assert "mixture is selected" in follow(4)
    promotion = json.loads((tmp_path / "study" / "promotion" / "result.json").read_text())
    assert set(promotion["mixture"]) == {"law", "code", "prose"}
    assert promotion["after"]["bpb/notes"] < promotion["before"]["bpb/notes"]


def shrink(file: Path) -> None:
    """Smaller settings, or this would take the minutes that a first study is meant to take."""
    settings = yaml.safe_load(file.read_text())
    settings["proxy"] = {"tokens": 20 * STEP, "model": MODEL, "recipe": RECIPE}
    settings["search"] |= {"trials": 4, "repeats": 1, "rounds": 1, "batch": 1, "surrogate": "gp"}
    settings["select"] |= {"seeds": 2}
    tokens = {name: 40 * STEP for name in ("seed_tokens", "expert_tokens", "tokens")}
    settings["promote"] |= {"model": MODEL, "recipe": RECIPE, **tokens}
    settings["ray"] |= {"address": "local"}
    file.write_text(yaml.safe_dump(settings))
