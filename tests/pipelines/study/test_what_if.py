"""`mixopt predict`, `propose` and `trials` of a study: its own surrogate, read and not written."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import mixopt
from mixopt.offline.runs import read_runs
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import TOKENS, finished_study
from tests.pipelines.made_runs import Run

MORE = "search: {surrogate: gp, proposer: bayes, batch: 3}\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished study with a production baseline beside natural."""
    study = finished_study(tmp_path_factory.mktemp("finished"))
    production = json.dumps(dict(zip(TOKENS, (0.1, 0.1, 0.2, 0.1, 0.4, 0.1), strict=True)))
    text = study.path.read_text() + MORE
    study.path.write_text(f"{text}baseline: {{natural: natural, production: {production}}}\n")
    return study.path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_if_web_is_forty_percent(file: Path, run: Run) -> None:
    before = contents(file.parent)
    done = run("predict", file, "--mixture", "web=40%", "--mixture", "production", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["surrogate"] == mixopt.open_study(file).surrogate_name
    rows = {row["mixture"]: row for row in found["rows"]}
    assert list(rows) == ["natural", "web=40%", "production"]
    weights = rows["web=40%"]["weights"]
    assert weights["web"] == 0.4
    rest = sum(n for name, n in TOKENS.items() if name != "web")
    assert weights["python"] == pytest.approx(0.6 * TOKENS["python"] / rest)
    study = mixopt.open_study(file)
    expected = study.predict(weights)["objective_mean"][0]
    assert rows["web=40%"]["objective"] == pytest.approx(expected)
    row = rows["web=40%"]
    # of seeds: natural and uniform were run with several
    assert row["run_low"] < row["mean_low"] < row["this_seed_low"] < row["objective"]
    assert contents(file.parent) == before


def test_natural_and_uniform_are_known_whatever_the_baseline_is(
    file: Path, run: Run, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    shutil.copytree(file.parent, study)
    own = study / file.name
    text = own.read_text().replace("{natural: natural, production:", "{production:")
    own.write_text(text)
    (study / "tiny" / "verdict.json").unlink()  # so that no candidate has these names
    done = run("predict", own, "--mixture", "natural", "--mixture", "uniform", "--json")
    assert done.code == 0, done.err
    rows = {row["mixture"]: row["weights"] for row in json.loads(done.out)["rows"]}
    assert list(rows) == ["production", "natural", "uniform"]
    assert rows["natural"] == pytest.approx(
        {n: t / sum(TOKENS.values()) for n, t in TOKENS.items()}
    )
    assert rows["uniform"] == pytest.approx(dict.fromkeys(TOKENS, 1 / len(TOKENS)))


def test_the_table_says_what_each_interval_is(file: Path, run: Run) -> None:
    out = run("predict", file, "--mixture", "docstrings=0.9,web=0.1").out
    assert "Predicted objective (bits per byte) of a proxy of 98.3k parameters after 400k" in out
    assert "mean ± 90 %" in out
    assert "one run ± 90 %" in out
    assert "seed standard deviation of a run" in " ".join(out.split())
    assert "docstrings=0.9,web=0.1 is outside the space: docstrings: at its upper bound" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_csv_of_mixtures_is_predicted_into_a_csv(file: Path, run: Run, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text("run,web,python\nx,0.75,0.25\ny,0.5,0.5\n")
    out = tmp_path / "out.csv"
    assert run("predict", file, "--ratios", given, "--out", out).code == 0
    frame = pl.read_csv(out)
    assert frame["run"].to_list() == ["natural", "x", "y"]
    assert frame["web"].to_list()[1:] == [0.75, 0.5]
    named = {"objective", "mean_low", "run_high", "bpb/descriptions_mean", "bpb/descriptions_std"}
    assert named <= set(frame.columns)
    assert frame["objective"].to_list() == pytest.approx(frame["bpb/descriptions_mean"].to_list())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no mixture is asked for. Write --mixture web=40%"),
        (
            ("--mixture", "web"),
            "--mixture web: no mixture is called 'web'. Choose from natural, uni",
        ),
        (("--mixture", "wep=0.4"), "wep: there is no training domain 'wep'. Did you mean 'web'"),
        (("--mixture", "web=0.4,web=0.6"), "'web=0.6' is no weight of a domain"),
        (("--mixture", "web=150%"), "the weights sum to 1.5"),
    ],
)
def test_what_is_no_mixture_is_one_clear_message(
    file: Path, run: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = run("predict", file, *arguments)
    assert done.code == 1
    assert message in " ".join(done.err.split())


def test_a_study_proposes_what_its_own_round_would_and_can_try_it(file: Path, run: Run) -> None:
    before = contents(file.parent)
    out = file.parent.parent / "next.csv"
    done = run("propose", file, "-n", "4", "--out", out)
    assert done.code == 0, done.err
    assert "4 mixtures by bayes." in done.out
    assert "search.enqueue: [" in done.out
    assert max(len(line) for line in done.out.splitlines() if str(out) not in line) <= 100
    again = json.loads(run("propose", file, "-n", "4", "--json").out)
    assert contents(file.parent) == before
    study, space = load_study(file), mixopt.open_study(file).space
    asked = {**study.search.model_dump(), "enqueue": [str(out)]}
    queued = study.model_copy(update={"search": type(study.search)(**asked)})
    mixtures = enqueued_mixtures(queued, space)
    assert [m.as_dict() for m in mixtures] == [it["mixture"] for it in again["mixtures"]]
    assert all(space.contains(mixture) for mixture in mixtures)


def test_a_study_proposes_under_further_constraints_and_by_another_proposer(
    file: Path, run: Run
) -> None:
    done = run("propose", file, "--proposer", "random", "--bounds", "web=0.3:0.5", "--json")
    found = json.loads(done.out)
    assert found["proposer"] == "random"
    assert len(found["mixtures"]) == 3  # the study's batch
    assert all(0.3 - 1e-9 <= it["mixture"]["web"] <= 0.5 + 1e-9 for it in found["mixtures"])


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_trials_are_exported_whole(file: Path, run: Run, tmp_path: Path, format: str) -> None:
    frame, out = mixopt.open_study(file).trials, tmp_path / f"trials.{format}"
    done = run("trials", file, "--format", format, "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    data = out.read_bytes()
    read = {
        "csv": lambda: pl.read_csv(data, schema=frame.schema),
        "json": lambda: pl.DataFrame(json.loads(data), schema=frame.schema),
        "parquet": lambda: pl.read_parquet(io.BytesIO(data)),
    }[format]()
    assert read.equals(frame)


def test_trials_are_printed_and_what_is_printed_is_read_as_finished_runs(
    file: Path, run: Run, tmp_path: Path
) -> None:
    done = run("trials", file)
    (tmp_path / "trials.csv").write_text(done.out)
    runs = read_runs(tmp_path / "trials.csv", tmp_path / "trials.csv")
    complete = mixopt.open_study(file).trials.filter(pl.col("state") == "complete")
    assert len(runs.names) == len(complete)
    assert run("trials", file, "--format", "parquet").err.startswith("error --format parquet")


def test_a_fit_still_asks_for_what_it_needs(run: Run, done: Path, tmp_path: Path) -> None:
    fit = done / "fit"
    assert run("predict", fit, "--mixture", "web=1").code == 2
    assert run("predict", fit, "--ratios", done / "R.csv").code == 2
    assert run("propose", fit).code == 2
