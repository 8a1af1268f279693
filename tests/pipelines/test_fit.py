"""`mixopt fit` and `mixopt predict` on finished runs, through the command line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from mixopt.diagnostics import Score, spearman
from pipelines.cli import main
from pipelines.fit import _why
from pipelines.fit_report import aligned
from pipelines.fitted import open_fit
from tests.pipelines.whole_study import mixopt, succeeded

DATA = Path(os.environ.get("MIXOPT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
DOMAINS = ("web", "code", "books", "news")
NOISE = 0.02
FILES = {
    "fit.json",
    "runs.parquet",
    "diagnostics.csv",
    "out_of_fold.csv",
    "effects.csv",
    "mixture.csv",
    "mixture.json",
    "report.html",
}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `mixopt` in this process."""

    def once(*arguments: str | Path) -> Said:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Said(code, *capsys.readouterr())

    return once


def losses(weights: np.ndarray, rng: np.random.Generator, noise: float = NOISE) -> np.ndarray:
    """(n, 2) two losses with diminishing returns: one of web and books, one of code."""
    first = 3 - np.log(0.1 + weights[:, 0] + 0.5 * weights[:, 2])
    second = 2 - 0.5 * np.log(0.05 + weights[:, 1] + 0.1 * weights[:, 3])
    true = np.column_stack([first, second])
    return true + noise * rng.standard_normal(true.shape)


def tables(
    folder: Path,
    n: int = 32,
    seed: int = 0,
    metrics: tuple[str, ...] = ("prose", "code<b>"),
    **extra,
) -> tuple[Path, Path]:
    """R.csv and M.csv of `n` made runs; `extra` columns go to the ratios."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(DOMAINS)), n)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"r{i}" for i in range(n)]
    columns = {d: weights[:, j] for j, d in enumerate(DOMAINS)}
    pl.DataFrame({"run": names, **extra, **columns}).write_csv(folder / "R.csv")
    values = losses(weights, rng)
    measured = {metric: values[:, j] for j, metric in enumerate(metrics)}
    pl.DataFrame({"run": names, **measured}).write_csv(folder / "M.csv")
    return folder / "R.csv", folder / "M.csv"


def fit(run: Run, folder: Path, *more: str | Path, surrogate: str = "linear", **made: Any) -> dict:
    """Fit made runs in `folder` and return what --json says."""
    ratios, metrics = tables(folder, **made)
    said = run(
        *("fit", "--ratios", ratios, "--metrics", metrics, "--out", folder / "fit", "--json"),
        *("--surrogate", surrogate, *more),
    )
    assert said.code == 0, said.err
    return json.loads(said.out)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made runs and a fit of a Gaussian process to them, all constraints given."""
    folder = tmp_path_factory.mktemp("gp")
    ratios, metrics = tables(folder)
    (folder / "P.yaml").write_text(
        "natural: {web: 6B, code: 1B, books: 2B, news: 1B}\nbounds: {code: [0, 0.2]}\n"
        "available_tokens: {books: 2B}\nbudget: 40B\nmax_epochs: 4\n"
    )
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", folder / "fit")
    more = ("--surrogate", "gp", "--priors", folder / "P.yaml", "--json")
    said = succeeded(mixopt("fit", *arguments, *more, cwd=folder))
    (folder / "said.json").write_text(said.stdout)
    return folder


def test_the_folder_holds_all_that_was_found(done: Path) -> None:
    assert {path.name for path in (done / "fit").iterdir()} == FILES | {"priors.yaml"}
    record = json.loads((done / "fit" / "fit.json").read_text())
    said = json.loads((done / "said.json").read_text())
    assert {key: said[key] for key in record} == record
    assert set(said["files"]) == FILES | {"priors.yaml"}
    assert record["domains"] == list(DOMAINS)
    assert record["metrics"] == ["prose", "code<b>"]
    assert record["objective"] == {"prose": 0.5, "code<b>": 0.5}
    assert record["surrogate"] == "gp"


def test_held_out_runs_are_scored_per_metric_and_for_the_objective(done: Path) -> None:
    scores = pl.read_csv(done / "fit" / "diagnostics.csv")
    assert scores.columns == ["metric", "spearman", "r2", "mae", "coverage90", "n"]
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


def test_the_proposed_mixture_keeps_the_priors_and_beats_the_natural_one(done: Path) -> None:
    mixtures = pl.read_csv(done / "fit" / "mixture.csv")
    assert mixtures.columns == ["domain", "natural", "best_observed", "proposed", "unconstrained"]
    weights = dict(zip(mixtures["domain"], mixtures["proposed"], strict=True))
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["code"] <= 0.2 + 1e-6
    assert weights["books"] <= 0.2 + 1e-6  # 4 epochs of 2B in 40B tokens
    assert mixtures["natural"].to_list() == pytest.approx([0.6, 0.1, 0.2, 0.1])
    told = json.loads((done / "fit" / "mixture.json").read_text())
    assert any(line.startswith("code: at its upper bound 0.2") for line in told["binding"])
    said = {name: told["predictions"][name]["objective"] for name in told["mixtures"]}
    assert said["unconstrained"]["mean"] < said["proposed"]["mean"] < said["natural"]["mean"]
    assert said["proposed"]["low"] < said["proposed"]["mean"] < said["proposed"]["high"]
    gap = said["proposed"]["mean"] - said["natural"]["mean"]
    assert told["difference"]["mean"] == pytest.approx(gap)
    assert told["difference"]["sure"] > 0.9
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


def test_the_report_needs_no_network_and_escapes_what_comes_from_outside(done: Path) -> None:
    page = (done / "fit" / "report.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert page.count("plotly.js v") == 1
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "The mixtures",
        "Weights",
        "Effects",
        "How good the predictions are",
        "Notes",
        "To go on",
        "Settings and versions",
    ]
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "code&lt;b&gt;" in text
    assert "code<b>" not in text
    assert "Constraints that bind: code: at its upper bound 0.2" in text
    assert "(4×)" in text


def test_nine_of_ten_new_runs_lie_within_the_predicted_intervals(done: Path, run: Run) -> None:
    ratios, metrics = tables(done / "new", n=400, seed=1)
    out = done / "new" / "P.csv"
    said = run("predict", done / "fit", "--ratios", ratios, "--out", out)
    assert said.code == 0, said.err
    found, true = pl.read_csv(out), pl.read_csv(metrics)
    assert found.columns == [
        "run",
        *(f"{m}_{part}" for m in ("prose", "code<b>", "objective") for part in ("mean", "std")),
    ]
    assert found["run"].to_list() == true["run"].to_list()
    for metric in ("prose", "code<b>"):
        error = np.abs(found[f"{metric}_mean"].to_numpy() - true[metric].to_numpy())
        inside = (error <= 1.645 * found[f"{metric}_std"].to_numpy()).mean()
        assert 0.8 < inside < 0.99, metric
    objective = (true["prose"] + true["code<b>"]).to_numpy() / 2
    assert spearman(found["objective_mean"].to_numpy(), objective) > 0.95
    mean = (found["prose_mean"] + found["code<b>_mean"]).to_numpy() / 2
    assert found["objective_mean"].to_numpy() == pytest.approx(mean)


def test_a_fit_that_is_opened_again_predicts_what_it_did(done: Path, run: Run) -> None:
    asked = pl.read_csv(done / "fit" / "mixture.csv").transpose(column_names="domain")
    pl.DataFrame({"name": ["natural", "observed", "proposed", "free"]}).hstack(
        asked.cast(pl.Float64)
    ).write_csv(done / "again.csv")
    first, second = done / "P1.csv", done / "P2.csv"
    for out in (first, second):
        assert run("predict", done / "fit", "--ratios", done / "again.csv", "--out", out).code == 0
    assert first.read_bytes() == second.read_bytes()
    told = json.loads((done / "fit" / "mixture.json").read_text())["predictions"]
    means = dict(pl.read_csv(first).select("name", "objective_mean").iter_rows())
    assert means["natural"] == pytest.approx(told["natural"]["objective"]["mean"], abs=1e-9)
    assert means["proposed"] == pytest.approx(told["proposed"]["objective"]["mean"], abs=1e-9)


def test_predictions_as_json_are_all_that_is_printed(done: Path, run: Run) -> None:
    (done / "one.csv").write_text("code,web,comics\n0.5,0.5,0\n")
    said = run("predict", done / "fit", "--ratios", done / "one.csv", "--out", done / "o", "--json")
    told = json.loads(said.out)
    assert [row["run"] for row in told["rows"]] == ["1"]
    assert any("comics" in note for note in told["notes"])
    assert any("books, news: taken as 0" in note for note in told["notes"])


def test_another_fidelity_is_predicted_at_the_fitted_one_with_a_loud_note(
    done: Path, run: Run
) -> None:
    (done / "big.csv").write_text("run,web,code,model_params\na,0.5,0.5,7B\n")
    (done / "own.csv").write_text("run,web,code\na,0.5,0.5\n")
    for name in ("big", "own"):
        said = run(
            "predict", done / "fit", "--ratios", done / f"{name}.csv", "--out", done / f"{name}.out"
        )
        assert ("WARNING: 1 of 1" in said.out) == (name == "big")
    assert (done / "big.out").read_bytes() == (done / "own.out").read_bytes()


def test_weight_on_an_unknown_domain_is_one_clean_message(done: Path, run: Run) -> None:
    (done / "bad.csv").write_text("run,web,cod\na,0.5,0.5\n")
    said = run("predict", done / "fit", "--ratios", done / "bad.csv", "--out", done / "x.csv")
    assert said.code == 1
    assert "bad.csv:2: cod" in said.err
    assert "Did you mean code" in said.err
    assert not (done / "x.csv").exists()


def test_a_person_reads_at_most_a_hundred_columns(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, metrics=("a_rather_long_name/of_a_loss" * 3, "code<b>"))
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    said = run("fit", *arguments, "--surrogate", "linear")
    assert said.code == 0, said.err
    assert max(len(line) for line in said.out.splitlines()) <= 100
    assert "The proposed mixture is predicted to reach" in said.out
    assert "The natural mixture is taken as the mean of all runs" in said.out


def test_a_fit_in_the_same_folder_is_replaced(tmp_path: Path, run: Run) -> None:
    (tmp_path / "P.yaml").write_text("natural: {web: 1, code: 1}\n")
    first = fit(run, tmp_path, "--priors", tmp_path / "P.yaml")
    again = fit(run, tmp_path, "--priors", tmp_path / "fit" / "priors.yaml")
    assert again == first
    (tmp_path / "fit" / "mine.txt").write_text("kept")
    said = fit(run, tmp_path, "--seed", "1", n=20)
    assert said["runs"] == 20
    assert {path.name for path in (tmp_path / "fit").iterdir()} == FILES | {"mine.txt"}


def test_files_of_others_are_not_overwritten(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "mixture.csv").write_text("precious")
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    said = run("fit", *arguments, "--surrogate", "linear")
    assert said.code == 1
    assert "mixture.csv that no earlier fit wrote" in said.err
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
    said = run("fit", "--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    assert said.code == 1
    assert "runs on 1 mixture are too few" in said.err
    assert "at least 3" in said.err
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("surrogate", ["gp", "linear"])
def test_three_runs_for_four_domains_are_fitted_with_what_cannot_be_known_said(
    tmp_path: Path, run: Run, surrogate: str
) -> None:
    said = fit(run, tmp_path, n=3, surrogate=surrogate)
    notes = " ".join(said["notes"])
    assert "fewer runs than domains" in notes
    assert "How good the predictions are is not known" in notes
    assert said["diagnostics"] == {}
    assert len(pl.read_csv(tmp_path / "fit" / "out_of_fold.csv")) == 0


def test_the_automatic_choice_shows_the_losers_too(tmp_path: Path, run: Run) -> None:
    said = fit(run, tmp_path, surrogate="auto", n=12)
    assert said["surrogate"] in said["compared"]
    assert len(said["compared"]) >= 2
    assert any(f"The surrogate {said['surrogate']} foretold" in note for note in said["notes"])
    assert open_fit(tmp_path / "fit").surrogate_name == said["surrogate"]


def test_the_objective_is_what_was_asked_for(tmp_path: Path, run: Run) -> None:
    said = fit(run, tmp_path, "--objective", "prose=3", "--objective", "code=1")
    assert said["objective"] == {"prose": 0.75, "code<b>": 0.25}
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
    told = json.loads(run("fit", *arguments, "--surrogate", "linear", "--json").out)
    assert set(told["objective"].values()) == {-0.5}
    predicted = told["predictions"]
    for name in ("qa_acc", "code_score"):
        assert predicted["proposed"][name]["mean"] > predicted["natural"][name]["mean"] - 0.1
    assert predicted["proposed"]["objective"]["mean"] < predicted["natural"]["objective"]["mean"]


def test_metrics_of_too_few_runs_are_left_out_of_objective_and_files(
    tmp_path: Path, run: Run
) -> None:
    ratios, metrics = tables(tmp_path)
    frame = pl.read_csv(metrics).with_row_index()
    rare = pl.when(pl.col("index") < 2).then(1.0)
    often = pl.when(pl.col("index") > 5).then(pl.col("code<b>"))
    frame.with_columns(rare=rare, often=often).drop("index", "code<b>").write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    told = json.loads(run("fit", *arguments, "--surrogate", "linear", "--json").out)
    assert told["metrics"] == ["prose", "often"]
    assert told["objective"] == {"prose": 0.5, "often": 0.5}
    assert told["diagnostics"]["often"]["n"] == 26
    notes = " ".join(told["notes"])
    assert "left out: rare" in notes
    assert "often (6)" in notes


def test_a_constant_metric_is_predicted_as_that_constant(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    pl.read_csv(metrics).with_columns(same=pl.lit(7.0)).write_csv(metrics)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    told = json.loads(run("fit", *arguments, "--surrogate", "gp", "--json").out)
    said = told["predictions"]["proposed"]["same"]
    assert (said["mean"], said["std"]) == (7, 0)
    assert told["diagnostics"]["same"]["spearman"] is None
    assert any("same is 7 in every run" in note for note in told["notes"])


def test_the_largest_of_several_sizes_is_predicted_unless_another_is_asked_for(
    tmp_path: Path, run: Run
) -> None:
    sizes = ["1M"] * 20 + ["60M"] * 12
    said = fit(run, tmp_path, model_params=sizes)
    assert said["fidelity"] == {"model_params": 60_000_000, "tokens": 1}
    assert said["diagnostics"]["objective"]["n"] == 12
    said = fit(run, tmp_path, "--model-params", "1M", model_params=sizes)
    assert said["fidelity"]["model_params"] == 1_000_000
    assert said["diagnostics"]["objective"]["n"] == 20
    wrong = run(
        *("fit", "--ratios", tmp_path / "R.csv", "--metrics", tmp_path / "M.csv"),
        *("--out", tmp_path / "other", "--surrogate", "linear", "--model-params", "1B"),
    )
    assert wrong.code == 1
    assert "0 runs at 1B parameters" in wrong.err
    assert "1M parameters (20), 60M parameters (12)" in wrong.err


def test_an_unknown_surrogate_names_the_choices(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    said = run("fit", *arguments, "--surrogate", "crystal-ball")
    assert said.code == 1
    assert "lightgbm" in said.err


def test_small_published_models_foretell_larger_ones(tmp_path: Path, run: Run) -> None:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    for kind in ("mixture", "pile_loss"):
        lines = (DATA / "regmix" / f"train_{kind}_1m.csv").read_text().splitlines()
        (tmp_path / f"{kind}.csv").write_text("\n".join(lines[:65]))
    arguments = ("--ratios", tmp_path / "mixture.csv", "--metrics", tmp_path / "pile_loss.csv")
    said = run("fit", *arguments, "--out", tmp_path / "fit", "--surrogate", "linear", "--json")
    assert json.loads(said.out)["layout"] == "regmix"
    asked = DATA / "regmix" / "test_mixture_60m.csv"
    assert run("predict", tmp_path / "fit", "--ratios", asked, "--out", tmp_path / "P").code == 0
    found = pl.read_csv(tmp_path / "P")
    true = pl.read_csv(DATA / "regmix" / "test_pile_loss_60m.csv")
    assert found["index"].to_list() == true["index"].to_list()
    mean = true.drop("index").mean_horizontal().to_numpy()
    assert spearman(found["objective_mean"].to_numpy(), mean) > 0.85


def test_a_metric_called_as_the_objective_is_refused(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, metrics=("objective", "code"))
    said = run("fit", "--ratios", ratios, "--metrics", metrics, "--out", tmp_path / "fit")
    assert (said.code, said.out) == (1, "")
    assert "M.csv:1: objective: a metric is called 'objective'" in said.err
    assert not (tmp_path / "fit").exists()


def test_with_several_sizes_the_choice_is_told_by_what_it_was_made_by() -> None:
    scores = {"a": Score(0.7, 0.9, 0.1, 0.9, 8), "b": Score(0.8, 0.6, 0.1, 0.9, 8)}
    assert "R² 0.900 (b 0.600)" in _why("a", scores, several=True)
    assert "rank correlation 0.800 (a 0.700)" in _why("b", scores, several=False)


def test_sizes_that_no_run_had_are_predicted_with_a_note(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, n=24, model_params=["1M"] * 12 + ["8M"] * 12)
    folder = tmp_path / "fit"
    command = ["--ratios", ratios, "--metrics", metrics, "--surrogate", "nested-laws"]
    assert run("fit", *command, "--out", folder).code == 0
    asked = tmp_path / "asked.csv"
    asked.write_text("run,web,code,books,news,model_params\na,.4,.3,.2,.1,8M\nb,.4,.3,.2,.1,64M\n")
    said = run("predict", folder, "--ratios", asked, "--out", tmp_path / "p.csv")
    assert said.code == 0
    assert "No run was measured at 64M parameters: those predictions extrapolate." in said.out
    found = pl.read_csv(tmp_path / "p.csv")
    assert np.isfinite(found.drop("run").to_numpy()).all()


def test_errors_of_one_column_stand_aligned_and_small_ones_are_not_shown_as_nothing() -> None:
    assert aligned([0.113, 0.04154]) == ["0.1130", "0.0415"]
    assert aligned([0.0123456, 0.000789]) == ["0.012346", "0.000789"]
    assert aligned([12.5, 3e-7]) == ["12.5", "3e-07"]
    assert aligned([float("nan"), 0.5]) == ["nan", "0.5000"]
