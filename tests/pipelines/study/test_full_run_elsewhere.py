"""Full runs that are trained elsewhere: asked for after the verdict, told, shown and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import StudyError, TrainingError
from mixopt.pipelines.study.export_model import export_model
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.run import run_study
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.settings import load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.study.test_elsewhere import FILE, asked, told, trained
from tests.pipelines.whole_study import ledger_trials

STUDY = FILE + "promote: {trainer: elsewhere, tokens: 100B, params: 7B}\n"
AT = "s3://models/ift/step-95000"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a verdict, whose full run is handed out by nobody yet."""
    path = tmp_path_factory.mktemp("judged") / "ift.yaml"
    path.write_text(FILE)
    while len(frame := asked(path)):
        told(path, trained(frame))
    path.write_text(STUDY)
    return path


@pytest.fixture
def file(judged: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(judged.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / judged.name


def full_run(file: Path, **changes: Any) -> dict[str, Any]:
    """The row of the full run as `ask` writes it, with what a trainer measured."""
    (row,) = asked(file, again=True).to_dicts()
    return {**row, "accuracy": 0.71, "checkpoint": AT, **changes}


def test_it_is_handed_out_after_the_verdict_and_told(file: Path, tmp_path: Path, run: Run) -> None:
    study = load_study(file)
    trials = len(ledger_trials(study))
    verdict = read_verdict(study.home)
    assert verdict is not None
    assert "waits to be handed out" in run("run", file).out  # it ends well, with the verdict
    (row,) = asked(file).to_dicts()
    assert (row["trial"], row["role"], row["candidate"]) == (
        "promotion",
        "promote",
        verdict.promoted,
    )
    assert (row["seed"], row["tokens"], row["checkpoint"]) == (study.seed, 100_000_000_000, "")
    weights = {name: row[f"mixture.{name}"] for name in verdict.mixture.domains}
    assert weights == pytest.approx(verdict.mixture.as_dict())
    assert asked(file).is_empty()  # not twice
    shown = " ".join(run("status", file).out.split())
    assert "is handed out at 20" in shown
    assert "Next: mixopt ask" in shown
    answer = run("tell", file, write(file, full_run(file)))
    assert "1 results recorded" in answer.out
    ended = run("ask", file, "--out", tmp_path / "next.csv")
    assert "Trained elsewhere, 100B tokens" in " ".join(ended.err.split())
    assert not (tmp_path / "next.csv").exists()
    promotion = read_promotion(study.home)
    assert promotion is not None
    assert promotion.after == {"accuracy": 0.71}
    assert promotion.mixture.same_as(verdict.mixture)
    candidate = verdict.winner.predicted
    assert candidate is not None
    assert promotion.predicted["accuracy"].mean == pytest.approx(-candidate.mean)
    assert len(ledger_trials(study)) == trials
    shown = " ".join(run("status", file).out.split())
    assert "Stage: done" in shown
    assert AT in shown
    page = (study.home / "report.html").read_text()
    assert "Trained elsewhere, 100B tokens" in page
    assert "0.7100" in page
    export_model(file, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "checkpoint.json").read_text())["checkpoint"] == AT
    assert AT in (tmp_path / "model" / "README.md").read_text()


def write(file: Path, *rows: dict[str, Any]) -> Path:
    table = file.parent / "full.json"
    table.write_text(json.dumps(rows))
    return table


def test_other_values_are_recorded_in_its_place_only_if_that_is_asked_for(file: Path) -> None:
    row = full_run(file)
    told(file, [row])
    told(file, [row])  # twice is once
    with pytest.raises(StudyError, match="the full run was told before with other values"):
        told(file, [{**row, "accuracy": 0.6}])
    asked(file)
    study = load_study(file)
    before = read_promotion(study.home)
    assert before is not None
    assert before.after == {"accuracy": 0.71}
    told(file, [{**row, "accuracy": 0.6}], replace=True)
    asked(file)
    promotion = read_promotion(study.home)
    assert promotion is not None
    assert promotion.after == {"accuracy": 0.6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 5}, "the full run was asked for with 1e"),
        ({"mixture.web": 0.9}, "the full run was asked for with"),
        ({"checkpoint": ""}, "the checkpoint of the full run is missing"),
        ({"accuracy": None, "loss": 2.0}, "'accuracy' of the objective is missing"),
    ],
)
def test_what_does_not_fit_is_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        told(file, [full_run(file, **changes)])


def test_a_full_run_that_failed_is_no_promotion_until_another_is_told(file: Path) -> None:
    row = full_run(file)
    failed = {**row, "accuracy": None, "failure": "diverged", "message": "at step 7"}
    told(file, [failed])
    with pytest.raises(TrainingError, match="told to have failed: diverged at step 7"):
        asked(file)
    assert read_promotion(load_study(file).home) is None
    told(file, [row], replace=True)
    asked(file)
    assert read_promotion(load_study(file).home) is not None


def test_a_result_before_it_is_asked_for_is_refused(file: Path) -> None:
    row = {"trial": "promotion", "accuracy": 0.7, "checkpoint": AT}
    with pytest.raises(StudyError, match="was not handed out"):
        told(file, [row])
    file.write_text(FILE)
    with pytest.raises(StudyError, match="no full run is asked for"):
        told(file, [row])


def test_plan_says_where_it_is_trained(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(file, slots=1)
    shown = " ".join(capsys.readouterr().out.split())
    assert "The full run is trained elsewhere" in shown
    assert "100B" in shown


def test_a_table_may_hold_json_rows_alone(file: Path, run: Run) -> None:
    found = json.loads(run("ask", file, "--json").out)
    assert found["step"] == "full run"
    assert [row["trial"] for row in found["trials"]] == ["promotion"]
    run_study(file, step="run")
