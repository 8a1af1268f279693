"""The demo's study by an external command: the same trials and the same model, to the digit."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from mixopt.io.markers import WEIGHTS
from mixopt.pipelines.corpus import build_from_environment
from mixopt.pipelines.study.demo import MEGABYTES, VOCABULARY
from mixopt.pipelines.study.run import run_study
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion, Verdict
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import ledger_trials

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

PROXY = "{python} -m mixopt.proxies.trainer {job}"
FULL_RUN = "{python} -m mixopt.pipelines.study.promotion_trainer {job}"


def demo(folder: Path) -> dict[str, Any]:
    """The demo's study, trials one by one."""
    written = resources.files("mixopt.pipelines.study").joinpath("demo_study.yaml").read_text()
    settings = {**yaml.safe_load(written), "folder": str(folder), "mlflow": {"enabled": False}}
    settings["ray"] = {**settings["ray"], "cohort": 1}
    return settings


def by_a_command(inside: Path, folder: Path) -> dict[str, Any]:
    """The study of `inside`, its trainings by commands; precision as it was measured there."""
    settings = demo(folder)
    precision = json.loads((inside / "precision.json").read_text())
    proxy, promote = settings["proxy"], dict(settings["promote"])
    (target,) = settings["objective"]
    of_proxy = {"model": {}, "recipe": {**proxy["recipe"], "precision": precision["proxy"]}}
    of_full = {**promote, "recipe": {**promote["recipe"], "precision": precision["promote"]}}
    tokens = of_full.pop("tokens")
    return {
        **settings,
        "trainer": {"command": PROXY, "settings": {**of_proxy, "weighed": [target]}},
        "objective": {f"bpb/{target}": 1.0},
        "guardrails": {f"bpb/{name}": allowed for name, allowed in settings["guardrails"].items()},
        "proxy": {"tokens": proxy["tokens"]},
        "promote": {
            "trainer": {"command": FULL_RUN, "settings": {**of_full, "weighed": [target]}},
            "tokens": tokens,
        },
        "ray": {key: value for key, value in settings["ray"].items() if key != "cohort"},
    }


def run(file: Path, settings: dict[str, Any]) -> None:
    """Run the study as the file that it is written to."""
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    run_study(file)


def trials_of(file: Path) -> list[tuple[Any, ...]]:
    """What was trained and measured."""
    return [
        (
            trial.spec.mixture,
            trial.spec.seed,
            trial.spec.role,
            trial.spec.candidate,
            dict(trial.metrics),
        )
        for trial in ledger_trials(load_study(file))
    ]


def judged(home: Path) -> Verdict:
    """The verdict of the study at `home`, without the times that its runs took."""
    verdict = read_verdict(home)
    assert verdict is not None
    candidates = (dataclasses.replace(each, device_seconds=0.0) for each in verdict.candidates)
    return dataclasses.replace(verdict, candidates=tuple(candidates))


def promoted(home: Path) -> Promotion:
    """The promotion of the study at `home`."""
    promotion = read_promotion(home)
    assert promotion is not None
    return promotion


@pytest.mark.timeout(5400)  # two demos, trial by trial
def test_the_demo_by_a_command_is_the_demo_to_the_digit(tmp_path: Path, ray_here: None) -> None:
    build_from_environment(tmp_path / "corpus", MEGABYTES, VOCABULARY)
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    run(tmp_path / "inside.yaml", demo(inside))
    run(tmp_path / "outside.yaml", by_a_command(inside, outside))
    trials, again = trials_of(tmp_path / "inside.yaml"), trials_of(tmp_path / "outside.yaml")
    assert len(trials) >= 8 + 1 + 2 * 4 + 3  # design, repeat, two rounds, seeds of the candidates
    assert trials == again
    assert judged(inside) == judged(outside)
    promotion, repeated = promoted(inside), promoted(outside)
    assert promotion.mixture == repeated.mixture
    assert promotion.after == repeated.after
    made = load_file(inside / "promotion" / promotion.model / WEIGHTS)
    remade = load_file(outside / "promotion" / repeated.model / WEIGHTS)
    assert made.keys() == remade.keys()
    for key, tensor in made.items():
        assert tensor.equal(remade[key]), key
