"""`mixopt.fit` finds what `mixopt fit` finds, from files and from frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mixopt
from mixopt.core.errors import MixoptError, RunsError
from mixopt.pipelines.offline.fit_report import headline
from mixopt.pipelines.offline.from_python import OpenFit
from mixopt.surrogates.noise import measure
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


def test_notes_are_the_same_before_and_after_the_optimum(folder: Path) -> None:
    found = mixopt.fit(folder / "R.csv", folder / "M.csv", surrogate="linear")
    before = found.notes
    found.optimum()
    assert before == found.notes == found.found.notes
    assert any("selection bias" in note for note in before)


def test_it_says_how_many_runs_it_learned_from(tmp_path: Path) -> None:
    sizes = ["60M"] * 20 + ["1B"] * 12
    tables(tmp_path, model_params=sizes)
    found = mixopt.fit(tmp_path / "R.csv", tmp_path / "M.csv", surrogate="linear")
    assert repr(found) == "<fit of linear to 12 runs>"
    smaller = mixopt.fit(tmp_path / "R.csv", tmp_path / "M.csv", surrogate="linear", params=6e7)
    assert repr(smaller) == "<fit of linear to 20 runs>"


def test_sizes_and_weights_may_be_numbers_of_any_kind(folder: Path, tmp_path: Path) -> None:
    tables(tmp_path, model_params=["60M"] * 32)
    for params in ("60M", 60_000_000, 6e7, np.int64(60_000_000)):
        found = mixopt.fit(
            tmp_path / "R.csv",
            tmp_path / "M.csv",
            objective={"prose": np.float64(2)},
            params=params,
            surrogate="linear",
        )
        assert (found.fitted.target.params, found.objective.weights) == (60_000_000, {"prose": 1.0})


def test_a_deviation_of_a_run_is_called_one(folder: Path, runs: OpenFit) -> None:
    best = runs.optimum()
    assert best.of_run
    assert best.std == pytest.approx(runs.predict(best.mixture)["objective_std"][0])
    assert "half the 90 % interval of a run;" in headline(runs.found)
    process = mixopt.fit(folder / "R.csv", folder / "M.csv", surrogate="gp")
    best = process.optimum()
    assert not best.of_run
    assert best.std < process.predict(best.mixture)["objective_std"][0]
    assert "half the 90 % interval of the mean over runs;" in headline(process.found)


def test_repeats_are_the_noise_that_a_gaussian_process_knows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = np.repeat(rng.dirichlet(np.ones(3), 12), 2, axis=0)
    ratios = pl.DataFrame(
        {"run": [f"r{i}" for i in range(24)]} | {d: weights[:, j] for j, d in enumerate("abc")}
    )
    loss = 3 - weights[:, 0] + 0.05 * rng.standard_normal(24)
    metrics = pl.DataFrame({"run": ratios["run"], "loss": loss})
    expected = measure(mixopt.fit(ratios, metrics, surrogate="linear").fitted.table).std["loss"]
    for surrogate, known in (("gp", expected), ("linear", np.nan)):
        found = mixopt.fit(ratios, metrics, surrogate=surrogate)
        noise = found.surrogate().predict(found.space.natural.array[None]).noise
        np.testing.assert_allclose(noise, known)
        notes = [note for note in found.notes if "the noise of a run from the repeats" in note]
        assert len(notes) == (surrogate == "gp")
        assert any("seed standard deviation is" in note for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": {"prose": "a"}}, r"objective: prose: 'a' is not a weight\. Give a number"),
        ({"objective": {"prose": np.nan}}, "objective: prose: nan is not a weight"),
        ({"objective": "prose"}, r"objective: 'prose' is no mapping.*objective=\{\"metric\": 1"),
        ({"objective": ["prose"]}, "objective: .* is no mapping"),
        ({"objective": {"prosa": 1}}, r"no metric is called 'prosa'\. Did you mean prose\?$"),
        ({"objective": {"x": 1}}, r"no metric is called 'x'\. Choose from prose, code<b>\.$"),
        ({"surrogate": None}, "surrogate: None cannot be used.*'auto'"),
        ({"priors": {"bounds": {}}}, "priors: .* cannot be used. Write them to a YAML file"),
        ({"seed": "x"}, "seed: 'x' cannot be used"),
        ({"seed": -1}, "seed: -1 cannot be used"),
        ({"params": 0.5}, "params: 0.5 is not a count"),
        ({"params": [1]}, r"params: \[1\] is not a count"),
        ({"ratios": [1, 2]}, "ratios: a list is no table"),
        ({"metrics": pl.LazyFrame({"run": ["a"]})}, r"metrics: a LazyFrame .* \.collect\(\) first"),
        ({"ratios": pl.DataFrame({"run": ["a"], "web": [[0.5]]})}, "ratios: web: the column holds"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(
    folder: Path, arguments: dict[str, object], message: str
) -> None:
    given = {"ratios": folder / "R.csv", "metrics": folder / "M.csv", **arguments}
    with pytest.raises(MixoptError, match=message) as refused:
        mixopt.fit(**given)  # type: ignore[arg-type]
    assert "--" not in str(refused.value)


def test_the_hint_for_metrics_of_two_scales_is_python(folder: Path) -> None:
    metrics = pl.read_csv(folder / "M.csv").with_columns(
        perplexity=1e4 * pl.col("prose"), more=pl.col("prose") + 1
    )
    with pytest.raises(
        MixoptError, match=r'such as objective=\{"prose": 1, "code<b>": 1, "more": 1\}'
    ):
        mixopt.fit(folder / "R.csv", metrics)


@pytest.mark.parametrize(
    ("mixtures", "message"),
    [
        (np.ones(4) / 4, "a float64 is no mixture"),
        ([0.5, 0.5], "mixture 1: a float is no mixture. Give weights by domain"),
        (0.5, "a float is no mixture"),
        ("web", "a str is no mixture"),
        ({"web": "1"}, "web: weight '1' is not a number"),
        ({"web": float("nan")}, "web: weight nan is not a number"),
        ([{"web": 1.0}, {"x": 1.0}], "mixture 2: there is no domain 'x'"),
        ({"web": 0.5}, r"sum to 0\.5, not 1"),
        (pl.DataFrame({d: [1.0, None] for d in DOMAINS}), "mixture 1: weights sum to 4"),
        (
            pl.DataFrame({d: [0.25, None] for d in DOMAINS}),
            "mixture 2: web: weight None is not a number",
        ),
        (pl.DataFrame({d: ["a"] for d in DOMAINS}), "web: weight 'a' is not a number"),
        (pl.LazyFrame({d: [0.25] for d in DOMAINS}), "a LazyFrame is no mixture"),
    ],
)
def test_mixtures_that_are_none_are_named(runs: OpenFit, mixtures: object, message: str) -> None:
    with pytest.raises(MixoptError, match=message):
        runs.predict(mixtures)  # type: ignore[arg-type]


def test_mixtures_of_few_digits_are_renormalised_as_finished_runs_are(runs: OpenFit) -> None:
    few = runs.predict({"web": 0.33, "code": 0.33, "books": 0.33})
    exact = runs.predict({"web": 1 / 3, "code": 1 / 3, "books": 1 / 3})
    np.testing.assert_allclose(few.to_numpy(), exact.to_numpy(), rtol=1e-9)
