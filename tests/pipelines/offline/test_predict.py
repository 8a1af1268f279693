"""`mixopt predict`: what a fit that was saved expects of other mixtures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mixopt.surrogates.scoring import spearman
from tests.pipelines.made_runs import Run, tables

DATA = Path(os.environ.get("MIXOPT_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


def test_nine_of_ten_new_runs_lie_within_the_predicted_intervals(done: Path, run: Run) -> None:
    ratios, metrics = tables(done / "new", n=400, seed=1)
    out = done / "new" / "P.csv"
    result = run("predict", done / "fit", "--ratios", ratios, "--out", out)
    assert result.code == 0, result.err
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
    values = json.loads((done / "fit" / "mixture.json").read_text())["predictions"]
    means = dict(pl.read_csv(first).select("name", "objective_mean").iter_rows())
    assert means["natural"] == pytest.approx(values["natural"]["objective"]["mean"], abs=1e-9)
    assert means["proposed"] == pytest.approx(values["proposed"]["objective"]["mean"], abs=1e-9)


def test_predictions_as_json_are_all_that_is_printed(done: Path, run: Run) -> None:
    (done / "one.csv").write_text("code,web,comics\n0.5,0.5,0\n")
    result = run(
        "predict", done / "fit", "--ratios", done / "one.csv", "--out", done / "o", "--json"
    )
    values = json.loads(result.out)
    assert [row["run"] for row in values["rows"]] == ["1"]
    assert any("comics" in note for note in values["notes"])
    assert any("books, news: taken as 0" in note for note in values["notes"])


def test_another_fidelity_is_predicted_at_the_fitted_one_with_a_loud_note(
    done: Path, run: Run
) -> None:
    (done / "big.csv").write_text("run,web,code,model_params\na,0.5,0.5,7B\n")
    (done / "own.csv").write_text("run,web,code\na,0.5,0.5\n")
    for name in ("big", "own"):
        result = run(
            "predict", done / "fit", "--ratios", done / f"{name}.csv", "--out", done / f"{name}.out"
        )
        assert ("1 of 1 ask for another fidelity" in result.out) == (name == "big")
    assert (done / "big.out").read_bytes() == (done / "own.out").read_bytes()


def test_weight_on_an_unknown_domain_is_one_clean_message(done: Path, run: Run) -> None:
    (done / "bad.csv").write_text("run,web,cod\na,0.5,0.5\n")
    result = run("predict", done / "fit", "--ratios", done / "bad.csv", "--out", done / "x.csv")
    assert result.code == 1
    assert "bad.csv:2: cod" in result.err
    assert "Did you mean code" in result.err
    assert not (done / "x.csv").exists()


def test_small_published_models_foretell_larger_ones(tmp_path: Path, run: Run) -> None:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    for kind in ("mixture", "pile_loss"):
        lines = (DATA / "regmix" / f"train_{kind}_1m.csv").read_text().splitlines()
        (tmp_path / f"{kind}.csv").write_text("\n".join(lines[:65]))
    arguments = ("--ratios", tmp_path / "mixture.csv", "--metrics", tmp_path / "pile_loss.csv")
    result = run("fit", *arguments, "--out", tmp_path / "fit", "--surrogate", "linear", "--json")
    assert json.loads(result.out)["layout"] == "regmix"
    asked = DATA / "regmix" / "test_mixture_60m.csv"
    assert run("predict", tmp_path / "fit", "--ratios", asked, "--out", tmp_path / "P").code == 0
    found = pl.read_csv(tmp_path / "P")
    true = pl.read_csv(DATA / "regmix" / "test_pile_loss_60m.csv")
    assert found["index"].to_list() == true["index"].to_list()
    mean = true.drop("index").mean_horizontal().to_numpy()
    assert spearman(found["objective_mean"].to_numpy(), mean) > 0.85


def test_sizes_that_no_run_had_are_predicted_with_a_note(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path, n=24, model_params=["1M"] * 12 + ["8M"] * 12)
    folder = tmp_path / "fit"
    command = ["--ratios", ratios, "--metrics", metrics, "--surrogate", "nested-laws"]
    assert run("fit", *command, "--out", folder).code == 0
    asked = tmp_path / "asked.csv"
    asked.write_text("run,web,code,books,news,model_params\na,.4,.3,.2,.1,8M\nb,.4,.3,.2,.1,64M\n")
    result = run("predict", folder, "--ratios", asked, "--out", tmp_path / "p.csv")
    assert result.code == 0
    assert "No run was measured at 64M parameters: those predictions extrapolate." in result.out
    found = pl.read_csv(tmp_path / "p.csv")
    assert np.isfinite(found.drop("run").to_numpy()).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [("space", None), ("space", {}), ("domains", 3), ("natural", [1]), ("fidelity", "60M")],
)
def test_a_fit_of_another_shape_names_its_record_and_not_the_runs(
    tmp_path: Path, done: Path, run: Run, key: str, value: object
) -> None:
    shutil.copytree(done / "fit", tmp_path / "fit")
    record = tmp_path / "fit" / "fit.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {key: value}))
    result = run("propose", tmp_path / "fit", "--out", tmp_path / "P.csv")
    assert result.code == 1
    assert f"{record}: holds what `mixopt fit` does not write" in result.err
    assert "Run `mixopt fit`" in result.err


@pytest.mark.parametrize("command", ["predict", "propose"])
def test_a_fit_imports_no_surrogate_that_the_command_line_does_not_name(
    command: str, done: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / f"foreign_{command}.py"
    plugin.write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
        "from mixopt.surrogates.regression.linear import Linear as Own\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(done / "fit", tmp_path / "fit")
    record = json.loads((tmp_path / "fit" / "fit.json").read_text())
    record["surrogate"] = f"foreign_{command}:Own"
    (tmp_path / "fit" / "fit.json").write_text(json.dumps(record))
    (tmp_path / "q.csv").write_text("code,web,comics\n0.5,0.5,0\n")
    asked = ["-n", 1, "--proposer", "random"] if command == "propose" else []
    asked = asked or ["--ratios", tmp_path / "q.csv"]
    line = (command, tmp_path / "fit", *asked, "--out", tmp_path / "out.csv")
    refused = run(*line)
    assert refused.code != 0
    assert f"--allow-plugin foreign_{command}:Own" in " ".join(refused.err.split())
    assert not (tmp_path / "imported").exists()
    assert run(*line, "--allow-plugin", f"foreign_{command}:Own").code == 0
    assert (tmp_path / "imported").exists()
