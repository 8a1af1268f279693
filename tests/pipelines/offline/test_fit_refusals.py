"""What `mixopt fit` refuses, leaves out, or does not touch."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.pipelines.made_runs import Run, fit, tables


def test_files_of_others_are_not_overwritten(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "mixture.csv").write_text("precious")
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = run("fit", *arguments, "--surrogate", "linear")
    assert result.code == 1
    assert "mixture.csv that no earlier fit wrote" in result.err
    assert [path.name for path in (tmp_path / "fit").iterdir()] == ["mixture.csv"]
    assert (tmp_path / "fit" / "mixture.csv").read_text() == "precious"


def test_a_folder_without_a_whole_fit_is_refused(tmp_path: Path, run: Run) -> None:
    ratios, _ = tables(tmp_path)
    ask = ("predict", tmp_path / "fit", "--ratios", ratios, "--out", tmp_path / "P.csv")
    assert "holds no fit" in run(*ask).err
    fit(run, tmp_path)
    record = tmp_path / "fit" / "fit.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"unfinished": True}))
    assert "interrupted" in run(*ask).err
    record.write_text('{"made_by": "somebody"}')
    assert "not written by `mixopt fit`" in run(*ask).err


def test_a_single_run_says_how_many_are_needed(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, n=1)
    result = run("fit", "--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    assert result.code == 1
    assert "runs on 1 mixture are too few" in result.err
    assert "at least 3" in result.err
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("surrogate", ["gp", "linear"])
def test_three_runs_for_four_domains_are_fitted_with_what_cannot_be_known_said(
    tmp_path: Path, run: Run, surrogate: str
) -> None:
    result = fit(run, tmp_path, n=3, surrogate=surrogate)
    notes = " ".join(result["notes"])
    assert "fewer runs than domains" in notes
    assert "The predictions could not be tested" in notes
    assert result["diagnostics"] == {}
    assert len(pl.read_csv(tmp_path / "fit" / "out_of_fold.csv")) == 0


def test_metrics_of_too_few_runs_are_left_out_of_objective_and_files(
    tmp_path: Path, run: Run
) -> None:
    ratios, metrics = tables(tmp_path)
    frame = pl.read_csv(metrics).with_row_index()
    rare = pl.when(pl.col("index") < 2).then(1.0)
    often = pl.when(pl.col("index") > 5).then(pl.col("code<b>"))
    frame.with_columns(rare=rare, often=often).drop("index", "code<b>").write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = json.loads(run("fit", *arguments, "--surrogate", "linear", "--json").out)
    assert result["metrics"] == ["prose", "often"]
    assert result["objective"] == {"prose": 0.5, "often": 0.5}
    assert result["diagnostics"]["often"]["n"] == 26
    notes = " ".join(result["notes"])
    assert "left out: rare" in notes
    assert "often (6)" in notes


def test_an_unknown_surrogate_names_the_choices(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = run("fit", *arguments, "--surrogate", "crystal-ball")
    assert result.code == 1
    assert "lightgbm" in result.err


def test_a_metric_called_as_the_objective_is_refused(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, metrics=("objective", "code"))
    result = run("fit", "--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    assert (result.code, result.out) == (1, "")
    assert "M.csv:1: objective: a metric is called 'objective'" in result.err
    assert not (tmp_path / "fit").exists()


def test_metrics_of_other_scales_ask_for_an_objective(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    clock = pl.int_range(pl.len()) * 3600 + 1_740_000_000
    pl.read_csv(metrics).with_columns(clock=clock).write_csv(metrics)
    files = ("--ratios", ratios, "--metrics", metrics)
    fitted = run("fit", *files, "--out", tmp_path / "fit", "--surrogate", "linear")
    replayed = run("replay", *files, "--proposer", "random", "--budget", 8)
    for answer in (fitted, replayed):
        assert answer.code == 1
        assert "'clock' is about 1.74e+09" in answer.err
        assert "--objective prose=1 --objective 'code<b>=1'" in answer.err
    asked = (*files, "--out", tmp_path / "fit", "--surrogate", "linear", "--objective", "prose")
    assert run("fit", *asked).code == 0
