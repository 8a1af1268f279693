"""`mixopt fit` on finished runs, through the command line: what it finds and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mixopt
from tests.pipelines.made_runs import DOMAINS, FILES, Run, fit, losses, tables


def test_the_folder_holds_all_that_was_found(done: Path) -> None:
    assert {path.name for path in (done / "fit").iterdir()} == FILES | {"priors.yaml"}
    record = json.loads((done / "fit" / "fit.json").read_text())
    values = json.loads((done / "result.json").read_text())
    assert {key: values[key] for key in record} == record
    assert set(values["files"]) == FILES | {"priors.yaml"}
    assert record["domains"] == list(DOMAINS)
    assert record["metrics"] == ["prose", "code<b>"]
    assert record["objective"] == {"prose": 0.5, "code<b>": 0.5}
    assert record["surrogate"] == "gp"


def test_the_proposed_mixture_keeps_the_priors_and_beats_the_natural_one(done: Path) -> None:
    mixtures = pl.read_csv(done / "fit" / "mixture.csv")
    assert mixtures.columns == ["domain", "natural", "best_observed", "proposed", "unconstrained"]
    weights = dict(zip(mixtures["domain"], mixtures["proposed"], strict=True))
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["code"] <= 0.2 + 1e-6
    assert weights["books"] <= 0.2 + 1e-6  # 4 epochs of 2B in 40B tokens
    assert mixtures["natural"].to_list() == pytest.approx([0.6, 0.1, 0.2, 0.1])
    values = json.loads((done / "fit" / "mixture.json").read_text())
    assert any(line.startswith("code: at its upper bound 0.2") for line in values["binding"])
    predicted = {name: values["predictions"][name]["objective"] for name in values["mixtures"]}
    assert (
        predicted["unconstrained"]["mean"]
        < predicted["proposed"]["mean"]
        < predicted["natural"]["mean"]
    )
    assert (
        predicted["proposed"]["low"] < predicted["proposed"]["mean"] < predicted["proposed"]["high"]
    )
    gap = predicted["proposed"]["mean"] - predicted["natural"]["mean"]
    assert values["difference"]["mean"] == pytest.approx(gap)
    assert values["difference"]["probability_better"] > 0.9
    true = losses(mixtures.select("natural", "proposed").to_numpy().T, np.random.default_rng(), 0)
    assert true[1].mean() < true[0].mean()


def test_the_best_observed_mixture_is_that_of_the_best_run(done: Path) -> None:
    values = pl.read_csv(done / "M.csv")
    row = int((values["prose"] + values["code<b>"]).arg_min() or 0)
    weights = pl.read_csv(done / "R.csv").select(DOMAINS).row(row)
    mixtures = pl.read_csv(done / "fit" / "mixture.csv")
    assert mixtures["best_observed"].to_list() == pytest.approx(weights)
    notes = json.loads((done / "fit" / "fit.json").read_text())["notes"]
    assert any(f"The best run is r{row}:" in note for note in notes)


def test_a_proposal_far_from_every_run_is_warned_of(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    frame = pl.read_csv(ratios)
    # runs that all lie near the middle of the simplex
    frame.with_columns(pl.col(d) * 0.1 + 0.9 / 4 for d in DOMAINS).write_csv(ratios)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    far = json.loads(run("fit", *arguments, "--surrogate", "linear", "--json").out)
    assert any("extrapolates" in note for note in far["notes"])


def test_effects_tell_which_domain_moves_which_metric(done: Path) -> None:
    effects = pl.read_csv(done / "fit" / "effects.csv")
    assert effects.columns == ["domain", "metric", "natural", "raised", "change", "std"]
    assert len(effects) == len(DOMAINS) * 3
    change = {(d, m): c for d, m, c in effects.select("domain", "metric", "change").iter_rows()}
    assert change["code", "code<b>"] < -0.05
    assert change["code", "prose"] > 0
    assert change["web", "code<b>"] > change["code", "code<b>"]


def test_a_fit_in_the_same_folder_is_replaced(tmp_path: Path, run: Run) -> None:
    (tmp_path / "P.yaml").write_text("natural: {web: 1, code: 1}\n")
    first = fit(run, tmp_path, "--priors", tmp_path / "P.yaml")
    again = fit(run, tmp_path, "--priors", tmp_path / "fit" / "priors.yaml")
    assert again == first
    (tmp_path / "fit" / "mine.txt").write_text("kept")
    result = fit(run, tmp_path, "--seed", "1", n=20)
    assert result["runs"] == 20
    assert {path.name for path in (tmp_path / "fit").iterdir()} == FILES | {"mine.txt"}


def test_the_objective_is_what_was_asked_for(tmp_path: Path, run: Run) -> None:
    result = fit(run, tmp_path, "--objective", "prose=3", "--objective", "code=1")
    assert result["objective"] == {"prose": 0.75, "code<b>": 0.25}
    wrong = run(
        *("fit", "--ratios", tmp_path / "R.csv", "--metrics", tmp_path / "M.csv"),
        *("--out", tmp_path / "other", "--objective", "porse=1"),
    )
    assert wrong.code == 1
    assert "no metric is called 'porse'" in wrong.err
    assert "prose" in wrong.err


def test_scores_are_maximised(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    frame = pl.read_csv(metrics)
    frame.select("run", qa_acc=-pl.col("prose"), code_score=-pl.col("code<b>")).write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = json.loads(run("fit", *arguments, "--surrogate", "linear", "--json").out)
    assert set(result["objective"].values()) == {-0.5}
    predicted = result["predictions"]
    parts_of = ("qa_acc", "code_score")
    for name in parts_of:
        assert predicted["proposed"][name]["mean"] > predicted["natural"][name]["mean"] - 0.1
    assert result["higher_is_better"]
    for mixture in predicted.values():
        parts = [mixture[name]["mean"] for name in parts_of]
        assert mixture["objective"]["mean"] == pytest.approx(sum(parts) / 2)
    gain = predicted["proposed"]["objective"]["mean"] - predicted["natural"]["objective"]["mean"]
    assert gain > 0
    assert result["difference"]["mean"] == pytest.approx(gain)
    assert result["difference"]["probability_better"] > 0.5
    assert " higher at the proposed mixture than at the natural one" in result["headline"]
    assert "probability that it is higher" in result["headline"]
    assert "higher is better" in (tmp_path / "fit" / "report.html").read_text()
    effects = pl.read_csv(tmp_path / "fit" / "effects.csv")
    change = {
        name: effects.filter(pl.col("metric") == name)["change"]
        for name in (*parts_of, "objective")
    }
    assert change["objective"].to_list() == pytest.approx(
        ((change["qa_acc"] + change["code_score"]) / 2).to_list()
    )
    fitted = mixopt.fit(ratios, metrics, surrogate="linear")
    assert fitted.higher_is_better
    assert fitted.optimum().mean == pytest.approx(predicted["proposed"]["objective"]["mean"])
    assert fitted.trials["objective"][0] == pytest.approx(
        (fitted.trials["qa_acc"][0] + fitted.trials["code_score"][0]) / 2
    )
    said = run("predict", tmp_path / "fit", "--ratios", ratios, "--out", tmp_path / "p.csv").out
    assert "the highest objective is" in " ".join(said.split())
    proposed = run("propose", tmp_path / "fit", "-n", "2", "--out", tmp_path / "n.csv", "--json")
    values = json.loads(proposed.out)
    assert values["higher_is_better"]
    assert values["optimum"]["objective_mean"] == pytest.approx(fitted.optimum().mean)
    best = max(values["mixtures"], key=lambda it: it["objective_mean"])
    assert values["best"] == best["run"]


def test_a_constant_metric_is_predicted_as_that_constant(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    pl.read_csv(metrics).with_columns(same=pl.lit(7.0)).write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = json.loads(run("fit", *arguments, "--surrogate", "gp", "--json").out)
    predicted = result["predictions"]["proposed"]["same"]
    assert (predicted["mean"], predicted["std"]) == (7, 0)
    assert result["diagnostics"]["same"]["spearman"] is None
    assert any("same is 7 in every run" in note for note in result["notes"])


def test_the_largest_of_several_sizes_is_predicted_unless_another_is_asked_for(
    tmp_path: Path, run: Run
) -> None:
    sizes = ["1M"] * 20 + ["60M"] * 12
    result = fit(run, tmp_path, model_params=sizes)
    assert result["fidelity"] == {"model_params": 60_000_000, "tokens": 1}
    assert result["diagnostics"]["objective"]["n"] == 12
    result = fit(run, tmp_path, "--model-params", "1M", model_params=sizes)
    assert result["fidelity"]["model_params"] == 1_000_000
    assert result["diagnostics"]["objective"]["n"] == 20
    wrong = run(
        *("fit", "--ratios", tmp_path / "R.csv", "--metrics", tmp_path / "M.csv"),
        *("--out", tmp_path / "other", "--surrogate", "linear", "--model-params", "1B"),
    )
    assert wrong.code == 1
    assert "0 runs at 1B parameters" in wrong.err
    assert "1M parameters (20), 60M parameters (12)" in wrong.err
