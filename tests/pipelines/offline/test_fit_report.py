"""What a person reads of a fit: the report, the terminal, and how good the predictions are."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from mixopt.pipelines.offline.fit import _why
from mixopt.pipelines.offline.fit_report import aligned
from mixopt.pipelines.offline.fitted import open_fit
from mixopt.surrogates.scoring import Choice, Score, spearman
from tests.pipelines.made_runs import Run, fit, tables


def test_held_out_runs_are_scored_per_metric_and_for_the_objective(done: Path) -> None:
    scores = pl.read_csv(done / "fit" / "diagnostics.csv")
    assert scores.columns == ["metric", "spearman", "ceiling", "r2", "mae", "coverage90", "n"]
    assert scores["metric"].to_list() == ["prose", "code<b>", "objective"]
    assert scores["n"].to_list() == [32, 32, 32]
    assert (scores["spearman"] > 0.9).all()
    held = pl.read_csv(done / "fit" / "out_of_fold.csv")
    assert held.columns == ["run", "metric", "observed", "mean", "std"]
    prose = held.filter(pl.col("metric") == "prose")
    assert prose["run"].to_list() == [f"r{i}" for i in range(32)]
    assert prose["observed"].to_list() == pl.read_csv(done / "M.csv")["prose"].to_list()
    again = spearman(prose["observed"].to_numpy(), prose["mean"].to_numpy())
    assert again == pytest.approx(scores["spearman"][0], abs=1e-9)


def test_the_report_needs_no_network_and_escapes_what_comes_from_outside(done: Path) -> None:
    page = (done / "fit" / "report.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert page.count('id="plotly"') == 1
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "Mixtures",
        "Predictions",
        "Effects of domains",
        "Quality of predictions",
        "Notes",
        "Next steps",
        "Settings and versions",
    ]
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "code&lt;b&gt;" in text
    assert "code<b>" not in text
    assert "Constraints that bind: code: at its upper bound 0.2" in text
    assert "(4×)" in text


def test_a_person_reads_at_most_a_hundred_columns(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, metrics=("a_rather_long_name/of_a_loss" * 3, "code<b>"))
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    result = run("fit", *arguments, "--surrogate", "linear")
    assert result.code == 0, result.err
    rows = [line for line in result.out.splitlines() if str(tmp_path) not in line]  # commands
    assert max(map(len, rows)) <= 100
    assert "at the proposed mixture than at the natural one" in result.out
    assert "The natural mixture is taken as the mean of all runs" in result.out


def test_the_automatic_choice_shows_the_losers_too(tmp_path: Path, run: Run) -> None:
    result = fit(run, tmp_path, surrogate="auto", n=12)
    assert result["surrogate"] in result["compared"]
    assert len(result["compared"]) >= 2
    # what the winner was chosen by is what the report tells of it: nothing is held out again
    assert result["diagnostics"]["objective"] == result["compared"][result["surrogate"]]
    assert any(
        f"The surrogate {result['surrogate']} predicted held-out runs best" in note
        for note in result["notes"]
    )
    assert open_fit(tmp_path / "fit").surrogate_name == result["surrogate"]


def test_with_several_sizes_the_choice_is_told_by_what_it_was_made_by() -> None:
    scores = {"a": Score(0.7, 0.9, 0.1, 0.9, 8), "b": Score(0.8, 0.6, 0.1, 0.9, 8)}
    assert "R² 0.900 (b 0.600)" in _why(Choice("a", scores), several=True)
    assert "rank correlation 0.800 (a 0.700)" in _why(Choice("b", scores), several=False)


def test_a_choice_that_was_made_on_a_part_of_the_runs_says_on_how_many(
    tmp_path: Path, run: Run
) -> None:
    result = fit(run, tmp_path, surrogate="auto", n=170)
    assert any("by fits to 128 runs each." in note for note in result["notes"])
    # the report's own predictions are of all runs
    assert result["diagnostics"]["objective"]["n"] == 170
    assert result["compared"][result["surrogate"]]["n"] == 170 - 128


def test_errors_of_one_column_stand_aligned_and_small_ones_are_not_shown_as_nothing() -> None:
    assert aligned([0.113, 0.04154]) == ["0.1130", "0.0415"]
    assert aligned([0.0123456, 0.000789]) == ["0.012346", "0.000789"]
    assert aligned([12.5, 3e-7]) == ["12.5", "3e-07"]
    assert aligned([float("nan"), 0.5]) == ["nan", "0.5000"]
