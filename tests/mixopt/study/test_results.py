"""A study's verdict and promotion read back as they were written, or as not there yet."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.mixture import Mixture
from mixopt.io import files
from mixopt.selection.results import Candidate, Decision, Predicted
from mixopt.study import records
from mixopt.study.results import VERSION, Promotion, Verdict
from mixopt.surrogates.noise import SeedScatter
from mixopt.surrogates.scoring import Score
from tests.pipelines.finished_study import promotion_of, verdict_of

MIXTURE = Mixture.of({"law": 1, "code": 2})
DECISION = Decision(
    baseline="natural",
    promoted="recommended",
    improved=True,
    reason="recommended differs from natural",
    confidence=0.9,
    level=0.05,
    look=1,
    looks=2,
    candidates=(
        Candidate("natural", MIXTURE, 2, 3.5, 0.1, (3.4, 3.6), 0.0),
        Candidate("recommended", MIXTURE, 2, 1 / 3, None, (1 / 3,), -0.1, -0.3, 0.1, 0.02, 0.04),
        Candidate("uniform", MIXTURE),  # every run diverged
    ),
)
VERDICT = verdict_of(
    DECISION,
    seed_scatter=SeedScatter(0.03, 4.5, 6),
    surrogate_scores={"linear": Score(math.nan, 0.5, 0.01, 0.9, 11)},
)
PROMOTION = promotion_of(MIXTURE)


def test_a_verdict_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files.write_json(tmp_path / "verdict.json", VERDICT.to_json())
    found = records.read_verdict(tmp_path)
    assert found is not None
    score = found.surrogate_scores["linear"]
    assert math.isnan(score.spearman)  # null in the file
    assert dataclasses.replace(found, surrogate_scores=VERDICT.surrogate_scores) == VERDICT
    assert dataclasses.replace(score, spearman=0.0) == Score(0.0, 0.5, 0.01, 0.9, 11)


def test_a_promotion_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files.write_json(tmp_path / "promotion" / "result.json", PROMOTION.to_json())
    assert records.read_promotion(tmp_path) == PROMOTION


@pytest.mark.parametrize("record", [VERDICT, PROMOTION])
def test_a_file_holds_every_field_and_its_version(record: Verdict | Promotion) -> None:
    names = {field.name for field in dataclasses.fields(record)}
    values = record.to_json()
    assert names <= values.keys()
    assert values["version"] == VERSION
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def without(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


VERDICT_KEYS = sorted(VERDICT.to_json().keys() - {"mixture"})  # `mixture` is that of `promoted`


@pytest.mark.parametrize("name", VERDICT_KEYS)
def test_a_verdict_that_lacks_a_field_is_not_there_yet(tmp_path: Path, name: str) -> None:
    files.write_json(tmp_path / "verdict.json", without(name, VERDICT.to_json()))
    assert records.read_verdict(tmp_path) is None


PROMOTION_KEYS = sorted(PROMOTION.to_json().keys() - {"checkpoint"})  # which came later


def test_a_promotion_from_before_checkpoints_elsewhere_reads_as_it_was(tmp_path: Path) -> None:
    files.write_json(
        tmp_path / "promotion" / "result.json", without("checkpoint", PROMOTION.to_json())
    )
    assert records.read_promotion(tmp_path) == PROMOTION


@pytest.mark.parametrize("name", PROMOTION_KEYS)
def test_a_promotion_that_lacks_a_field_is_not_there_yet(tmp_path: Path, name: str) -> None:
    files.write_json(tmp_path / "promotion" / "result.json", without(name, PROMOTION.to_json()))
    assert records.read_promotion(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"version": VERSION + 1},
        {"promoted": "nobody"},
        {"candidates": ["natural"]},
        {"candidates": None},
        {"recommended": {"law": 2.0}},
        {"interval": [1.0]},
        {"level": "high"},
        {"surrogate_scores": {"linear": {"spearman": 1.0}}},
        {"seed_scatter": {"deviation": 1.0}},
    ],
)
def test_a_verdict_of_another_shape_is_not_there_yet(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    files.write_json(tmp_path / "verdict.json", VERDICT.to_json() | changes)
    assert records.read_verdict(tmp_path) is None


@pytest.mark.parametrize("text", ["[]", "{}", "", '{"version": 1, "promoted": "a"}', '"x"'])
def test_a_foreign_file_is_not_there_yet(tmp_path: Path, text: str) -> None:
    for path in (tmp_path / "verdict.json", tmp_path / "promotion" / "result.json"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert records.read_verdict(tmp_path) is None
    assert records.read_promotion(tmp_path) is None


def test_a_mean_is_inside_the_interval_that_holds_it() -> None:
    candidate = Candidate("found", MIXTURE, 2, 3.5, predicted=Predicted(3.4, 0.1, 3.3, 3.5))
    assert candidate.inside is True
    assert dataclasses.replace(candidate, mean=3.6).inside is False
    assert dataclasses.replace(candidate, mean=None).inside is None
    assert dataclasses.replace(candidate, predicted=None).inside is None


def test_the_promoted_mixture_is_that_of_the_winner() -> None:
    assert VERDICT.winner == VERDICT.candidate("recommended")
    assert VERDICT.mixture == MIXTURE
    assert VERDICT.candidate("nobody") is None
