"""`mixopt.fit` finds what `mixopt fit` finds, from files and from frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mixopt
from mixopt.core.errors import MixoptError, RunsError
from mixopt.pipelines.offline.from_python import OpenFit
from tests.pipelines.finished_study import finished_study
from tests.pipelines.made_runs import DOMAINS, Run, tables
from tests.pipelines.made_runs import fit as fit_by_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    tables(folder)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> OpenFit:
    return mixopt.fit(folder / "R.csv", folder / "M.csv", surrogate="linear")


def test_it_finds_what_the_command_finds_and_writes_nothing(
    folder: Path, runs: OpenFit, run: Run, tmp_path: Path
) -> None:
    result = fit_by_command(run, tmp_path)
    assert runs.optimum().mixture.as_dict() == result["mixtures"]["proposed"]
    assert len(runs.notes) == len(result["notes"])
    expected = result["predictions"]["natural"]["objective"]["mean"]
    found = runs.predict(runs.space.natural)["objective_mean"][0]
    assert found == pytest.approx(expected, abs=1e-12)
    assert {path.name for path in folder.iterdir()} == {"R.csv", "M.csv"}


def test_frames_are_taken_as_files_are(folder: Path, runs: OpenFit) -> None:
    frames = (pl.read_csv(folder / name) for name in ("R.csv", "M.csv"))
    found = mixopt.fit(*frames, surrogate="linear")
    assert found.predict(found.trials).equals(runs.predict(runs.trials))


def test_a_row_of_a_frame_that_cannot_be_used_is_named(folder: Path) -> None:
    ratios, metrics = (pl.read_csv(folder / name) for name in ("R.csv", "M.csv"))
    wrong = ratios.with_columns(web=pl.when(pl.col("run") == "r1").then(-1.0).otherwise("web"))
    with pytest.raises(RunsError) as refused:
        mixopt.fit(wrong, metrics, surrogate="linear")
    assert refused.value.where.startswith("ratios:3")
    with pytest.raises(RunsError) as refused:
        mixopt.fit(folder / "R.csv", folder / "absent.csv")
    assert refused.value.where == str(folder / "absent.csv")


def test_messages_name_arguments_not_options_of_the_command_line(folder: Path) -> None:
    table = folder / "R.csv", folder / "M.csv"
    with pytest.raises(MixoptError, match=r"^objective") as refused:
        mixopt.fit(*table, objective={"absent": 1.0}, surrogate="linear")
    assert "--" not in str(refused.value)
    with pytest.raises(MixoptError, match=r"^params") as refused:
        mixopt.fit(*table, params="many", surrogate="linear")
    assert "--" not in str(refused.value)
    noted = mixopt.fit(*table, surrogate="linear").notes
    assert any('objective={"metric": weight}' in note for note in noted)
    assert not any("--" in note for note in noted)


def test_trials_and_curves_are_the_runs_with_their_objective(folder: Path) -> None:
    found = mixopt.fit(folder / "R.csv", folder / "M.csv", objective={"prose": 1.0}, seed=3)
    table = pl.read_csv(folder / "R.csv").join(pl.read_csv(folder / "M.csv"), on="run")
    assert found.trials["run"].to_list() == table["run"].to_list()
    np.testing.assert_allclose(found.trials["objective"], table["prose"])
    np.testing.assert_allclose(found.trials["mixture.code"], table["code"])
    assert found.curves.height == len(table)
    assert "objective" in found.out_of_fold().scores


def test_rows_of_one_run_are_its_curve_and_the_last_its_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 12)
    names = [f"r{i}" for i in range(12)]
    ratios = pl.DataFrame({"run": names} | {d: weights[:, j] for j, d in enumerate("abc")})
    steps = [
        {"run": name, "step": step, "tokens": 100 * step, "loss": 3 - w[0] - 0.1 * step}
        for name, w in zip(names, weights, strict=True)
        for step in (2, 1)
    ]
    found = mixopt.fit(ratios, pl.DataFrame(steps), surrogate="linear")
    assert (found.curves.height, found.trials.height) == (24, 12)
    np.testing.assert_allclose(found.trials["loss"], 3 - weights[:, 0] - 0.2)


def test_its_figures_show_something(runs: OpenFit) -> None:
    for name in ("surrogate", "mixtures", "effects"):
        assert getattr(runs.plots, name)().data


def test_a_studys_trials_are_finished_runs_too(tmp_path: Path) -> None:
    study = mixopt.open_study(finished_study(tmp_path).path)
    found = mixopt.fit(study.trials, surrogate="linear", objective={"bpb/descriptions": 1.0})
    assert set(found.space.domains) == set(study.space.domains)
    complete = study.trials.filter(pl.col("state") == "complete")
    np.testing.assert_allclose(found.trials["objective"], complete["objective"])


def test_domains_are_those_of_the_tables(runs: OpenFit) -> None:
    assert runs.space.domains == DOMAINS


def test_the_advice_for_one_plain_table_leads_to_the_same_optimum(
    folder: Path, runs: OpenFit
) -> None:
    ratios, metrics = (pl.read_csv(folder / name) for name in ("R.csv", "M.csv"))
    table = ratios.join(metrics, on="run")
    with pytest.raises(RunsError, match=r"two tables.*or call the columns ratio_<domain>"):
        mixopt.fit(table)
    prefixed = table.rename({d: f"ratio_{d}" for d in DOMAINS})
    prefixed = prefixed.rename({m: f"metric_{m}" for m in metrics.columns if m != "run"})
    found = mixopt.fit(prefixed, surrogate="linear")
    weights = found.optimum().mixture.weights
    assert weights == pytest.approx(runs.optimum().mixture.weights, abs=1e-6)
    assert "Minimised: metric_" in found.notes[1]
    apart = mixopt.fit(table.select("run", *DOMAINS), metrics, surrogate="linear")
    assert apart.optimum().mixture == runs.optimum().mixture
