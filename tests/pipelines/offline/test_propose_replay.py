"""`mixopt propose` and `mixopt replay`, as scripts call them: files in, files and JSON out."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.offline.runs import read_mixtures
from mixopt.pipelines.cli import main
from mixopt.pipelines.offline.propose import ROUNDING, exact
from mixopt.search.proposers import KNOWN
from mixopt.testing.surrogates import example_values
from tests.pipelines.whole_study import mixopt, succeeded

DOMAINS = ("web", "code", "books", "wiki")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: exit code, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def write_runs(
    folder: Path, n: int = 24, sizes: Sequence[tuple[str, str]] = (), cost: bool = False
) -> tuple[Path, Path]:
    """Made runs of which `a`, `b` and `c` are known functions of the mixture, lower is better.

    With `sizes`, the first half of the mixtures of each size are run at the next one too.
    """
    weights = np.random.default_rng(0).dirichlet(np.full(4, 0.8), n)
    values = example_values(weights) + 0.003 * np.random.default_rng(1).normal(size=(n, 3))
    rows, scores = [], []
    for k, (params, tokens) in enumerate(sizes or [("", "")]):
        for i in range(n // 2**k):
            name = f"run{i}-{params}" if params else f"run{i}"
            row: dict[str, Any] = {"run": name, **dict(zip(DOMAINS, weights[i], strict=True))}
            if params:
                row |= {"model_params": params, "tokens": tokens}
            if cost:
                row["cost"] = 2.5 * (k + 1)
            rows.append(row)
            scores.append({"run": name, **dict(zip("abc", values[i] - 0.4 * k, strict=True))})
    folder.mkdir(exist_ok=True, parents=True)
    paths = folder / "ratios.csv", folder / "metrics.csv"
    for path, found in zip(paths, (rows, scores), strict=True):
        pl.DataFrame(found).write_csv(path)
    return paths


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of 24 runs by ridge regression."""
    folder = tmp_path_factory.mktemp("fit")
    ratios, metrics = write_runs(folder)
    command = ["fit", "--ratios", ratios, "--metrics", metrics, "--surrogate", "linear"]
    succeeded(mixopt(*map(str, command), "--out", "fit", cwd=folder))
    return folder / "fit"


def mixtures(path: Path) -> np.ndarray:
    """(n, 4) weights of a CSV of proposals, as any script would read them."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[domain]) for domain in DOMAINS] for row in rows])


# propose


def test_sixteen_constrained_mixtures_are_feasible_to_rounding(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "next.csv"
    constraints = ["--bounds", "web=0.1:0.5", "--bounds", "wiki=0.02:", "--linear"]
    constraints += ["web + code <= 0.7", "--linear", "books >= 0.5 * code"]
    constraints += ["--tokens", "1B", "--available", "code=100M", "--max-epochs", "2"]
    code, result, error = run("propose", fit, "-n", "16", *constraints, "--out", out)
    assert code == 0, error
    web, codes, books, wiki = mixtures(out).T
    assert len(web) == 16
    assert len(np.unique(mixtures(out), axis=0)) == 16
    assert np.abs(mixtures(out).sum(axis=1) - 1).max() < 1e-12
    assert mixtures(out).min() >= 0
    slack = [web - 0.1, 0.5 - web, wiki - 0.02, 0.7 - web - codes, books - codes / 2, 0.2 - codes]
    assert min(float(room.min()) for room in slack) >= -1e-12
    assert "p0016" in result
    assert str(out) in result


def test_a_mixture_that_misses_a_fixed_sum_by_rounding_stays_where_it_is() -> None:
    fixed = [
        LinearConstraint({"web": 1.0, "code": 1.0}, 0.3),
        LinearConstraint({"web": -1.0, "code": -1.0}, -0.3),
    ]
    space = MixtureSpace(DOMAINS, Mixture.uniform(DOMAINS), linear=fixed)
    missed = Mixture(DOMAINS, (0.3 + 1e-9, 0.0, 0.7 - 1e-9, 0.0))
    kept = exact(space, missed, "bayes")
    np.testing.assert_allclose(kept.array, missed.array, atol=2e-9)
    assert space.polytope.excess(kept.array[None])[0] <= ROUNDING


def test_the_file_is_ratios_that_fit_and_predict_read(fit: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "next.csv"
    assert run("propose", fit, "-n", "3", "--out", out)[0] == 0
    assert pl.read_csv(out).columns == ["run", *DOMAINS]
    found = read_mixtures(out, DOMAINS)
    assert found.names == ("p0001", "p0002", "p0003")
    assert (found.weights == mixtures(out)).all()
    predicted = tmp_path / "predicted.csv"
    code, _, error = run("predict", fit, "--ratios", out, "--out", predicted)
    assert code == 0, error
    assert pl.read_csv(predicted)["run"].to_list() == ["p0001", "p0002", "p0003"]


def test_what_is_said_of_proposals_is_what_predict_says(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    out, predicted = tmp_path / "next.csv", tmp_path / "predicted.csv"
    code, result, _ = run("propose", fit, "-n", "4", "--out", out, "--json")
    assert code == 0
    values = json.loads(result)
    assert run("predict", fit, "--ratios", out, "--out", predicted)[0] == 0
    table = pl.read_csv(predicted)
    for key in ("objective_mean", "objective_std"):
        mine = [mixture[key] for mixture in values["mixtures"]]
        assert mine == pytest.approx(table[key].to_list())
    best = min(values["mixtures"], key=lambda mixture: mixture["objective_mean"])
    assert values["best"] == best["run"]
    assert values["out"] == str(out)


def test_constraints_that_bind_are_named_beside_the_unconstrained_optimum(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    # the fourth domain helps no metric, so a lower bound on it holds whatever is best
    constraint = ["--bounds", "wiki=0.3:"]
    out = tmp_path / "next.csv"
    code, result, _ = run("propose", fit, "-n", "2", *constraint, "--out", out, "--json")
    assert code == 0
    optimum = json.loads(result)["optimum"]
    assert optimum["binding"][0].startswith("wiki: at its lower bound 0.30")
    assert optimum["mixture"]["wiki"] == pytest.approx(0.3, abs=1e-3)
    assert optimum["unconstrained"]["wiki"] < 0.2
    assert optimum["unconstrained_mean"] < optimum["objective_mean"]


def test_a_price_on_divergence_draws_proposals_to_the_natural_mixture(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    natural = Mixture.exact(json.loads((fit / "fit.json").read_text())["natural"])

    def distances(kl: str) -> list[float]:
        command = ["-n", "2", "--kl", kl, "--out", str(tmp_path / "next.csv"), "--json"]
        result = json.loads(run("propose", fit, *command)[1])
        found = [result["optimum"], *result["mixtures"]]
        return [Mixture.of(each["mixture"]).distance(natural) for each in found]

    free, priced, dear = np.array([distances(kl) for kl in ("0", "0.1", "10")])
    assert free[0] > priced[0] > dear[0]
    assert free[1:].mean() > priced[1:].mean() > dear[1:].mean()
    assert dear.max() < 0.05


def test_equal_seeds_write_equal_files(fit: Path, run: Run, tmp_path: Path) -> None:
    texts = []
    for k, seed in enumerate(("3", "3", "4")):
        out = tmp_path / f"{k}.csv"
        run("propose", fit, "-n", "2", "--proposer", "random", "--seed", seed, "--out", out)
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]


def test_pending_mixtures_are_not_proposed_again(fit: Path, run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert run("propose", fit, "-n", "3", "--out", first)[0] == 0
    code, result, _ = run("propose", fit, "-n", "3", "--pending", first, "--out", second, "--json")
    assert code == 0
    assert "3 mixtures are pending" in json.loads(result)["notes"][0]
    roots = np.sqrt(mixtures(second)) @ np.sqrt(mixtures(first)).T
    assert roots.max() < 1 - 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--bounds", "web=0.7:", "--bounds", "code=0.6:"],
            "--bounds: the lower bounds sum",
        ),
        (
            ["--linear", "web <= 0.1", "--linear", "web >= 0.4"],
            "satisfies (web ≤ 0.1)",
        ),
        (["--bounds", "wed=0.1:"], "Did you mean web?"),
        (["--max-epochs", "2"], "max_epochs needs the available tokens"),
        (["--proposer", "bayse"], "Choose one of bayes"),
        (["-n", "0"], "Ask for at least 1"),
        (["--tokens", "lots"], "--tokens"),
        (["--max-epochs", "inf"], "--max-epochs"),
        (["--kl", "inf"], "--kl"),
        (["--linear", "1e999 web <= 0.7"], "not finite"),
    ],
)
def test_what_cannot_be_proposed_is_one_clear_message(
    arguments: list[str], message: str, fit: Path, run: Run, tmp_path: Path
) -> None:
    code, out, error = run("propose", fit, *arguments, "--out", tmp_path / "next.csv")
    assert code == 1
    assert out == ""
    assert message in error
    assert not (tmp_path / "next.csv").exists()


def test_a_folder_without_a_fit_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, error = run("propose", tmp_path, "--out", tmp_path / "next.csv")
    assert code == 1
    assert "mixopt fit" in error


def test_runs_of_several_sizes_propose_at_the_target(run: Run, tmp_path: Path) -> None:
    sizes = [("1M", "10M"), ("4M", "10M")]
    ratios, metrics = write_runs(tmp_path, sizes=sizes)
    fitted = ["--surrogate", "linear", "--out", str(tmp_path / "fit")]
    code, _, error = run("fit", "--ratios", ratios, "--metrics", metrics, *fitted)
    assert code == 0, error
    out = tmp_path / "next.csv"
    assert run("propose", tmp_path / "fit", "-n", "2", "--out", out)[0] == 0
    table = pl.read_csv(out)
    assert table["model_params"].to_list() == [4_000_000] * 2
    assert table["tokens"].to_list() == [10_000_000] * 2


# replay


def replayed(run: Run, paths: tuple[Path, Path], *arguments: str | Path) -> dict[str, Any]:
    """What `mixopt replay --json` prints, which is one JSON object and nothing else."""
    command = ["--ratios", paths[0], "--metrics", paths[1], "--surrogate", "linear", "--json"]
    code, result, error = run("replay", *command, *arguments)
    assert code == 0, error
    values: dict[str, Any] = json.loads(result)
    return values


def test_replay_tells_regret_by_cost_for_every_proposer_and_seed(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path)
    asked = ["--proposer", "random,regmix", "--budget", "10", "--seeds", "3", "--initial", "5"]
    values = replayed(run, paths, *asked)
    metrics = pl.read_csv(paths[1])
    objective = metrics.select(pl.mean_horizontal("a", "b", "c")).to_series()
    assert values["pool"]["best"]["run"] == metrics["run"][objective.arg_min()]
    assert values["pool"]["best"]["objective"] == pytest.approx(objective.min())
    assert values["cost_unit"] == "runs"
    assert list(values["proposers"]) == ["random", "regmix"]
    for found in values["proposers"].values():
        assert [seed["seed"] for seed in found["seeds"]] == [0, 1, 2]
        for seed in found["seeds"]:
            assert seed["points"]["cost"] == list(range(1, 11))
            trained = objective[metrics["run"].to_list().index(seed["trained_run"])]
            assert seed["points"]["trained"][-1] == pytest.approx(trained - objective.min())
            result = objective[metrics["run"].to_list().index(seed["recommended_run"])]
            assert seed["points"]["recommended"][-1] == pytest.approx(result - objective.min())
        ends = [seed["points"]["recommended"][-1] for seed in found["seeds"]]
        assert found["summary"]["recommended"] == pytest.approx(np.mean(ends))
        assert found["curve"]["recommended"]["mean"][-1] == pytest.approx(np.mean(ends))
        assert len(found["curve"]["cost"]) == len(found["curve"]["trained"]["median"])
    # both begin with the same runs
    random, regmix = (found["seeds"] for found in values["proposers"].values())
    assert [s["order"][:5] for s in random] == [s["order"][:5] for s in regmix]


def test_a_budget_beyond_the_pool_ends_at_no_regret_and_says_so(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path, n=8)
    values = replayed(run, paths, "--proposer", "random", "--budget", "50", "--seeds", "2")
    summary = values["proposers"]["random"]["summary"]
    assert (summary["trained"], summary["found"], summary["cost"]) == (0, 1, 8)
    assert any("trained every run at the target" in note for note in values["notes"])


def test_every_registered_proposer_finds_the_best_of_a_pool_it_may_train_whole(
    run: Run, tmp_path: Path
) -> None:
    paths = write_runs(tmp_path, n=8)
    asked = ["--proposer", ",".join(KNOWN), "--budget", "8", "--seeds", "1", "--batch", "2"]
    values = replayed(run, paths, *asked)
    ends = {name: found["summary"]["trained"] for name, found in values["proposers"].items()}
    assert ends == dict.fromkeys(KNOWN, 0)


def test_a_cost_column_is_what_a_budget_is_spent_in(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path, cost=True)
    values = replayed(run, paths, "--proposer", "random", "--budget", "13", "--seeds", "1")
    assert values["cost_unit"] == "the files' cost column"
    costs = values["proposers"]["random"]["seeds"][0]["points"]["cost"]
    assert costs == [2.5, 5, 7.5, 10, 12.5]


def test_free_small_runs_come_before_any_cost(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path, sizes=[("1M", "10M"), ("4M", "10M")])
    asked = ["--proposer", "random", "--budget", "5", "--seeds", "1", "--free", "12"]
    values = replayed(run, paths, *asked)
    assert values["target"] == {"model_params": 4_000_000, "tokens": 10_000_000}
    assert values["pool"]["targets"] == 12
    search = values["proposers"]["random"]["seeds"][0]
    assert search["points"]["cost"] == [0, 1, 2, 3, 4, 5]
    assert search["points"]["runs"][0] == 12
    assert search["points"]["trained"][0] is None
    assert all(name.endswith("-1M") for name in search["order"][:12])
    other = replayed(run, paths, *asked[:4], "--seeds", "1", "--model-params", "1M")
    assert other["target"]["model_params"] == 1_000_000


def test_an_objective_may_be_asked_for(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path)
    asked = ["--proposer", "random", "--budget", "4", "--seeds", "1", "--objective", "a=-1"]
    values = replayed(run, paths, *asked)
    metrics = pl.read_csv(paths[1])
    assert values["pool"]["best"]["run"] == metrics["run"][metrics["a"].arg_max()]
    assert values["objective"] == {"a": -1}


@pytest.mark.slow  # each process imports all anew
def test_seeds_in_several_processes_find_what_one_finds(run: Run, tmp_path: Path) -> None:
    paths = write_runs(tmp_path)
    asked = ["--proposer", "random", "--budget", "6", "--seeds", "2"]
    assert replayed(run, paths, *asked, "--jobs", "2") == replayed(run, paths, *asked)


def test_a_person_gets_a_table_and_a_folder_with_a_page(run: Run, tmp_path: Path) -> None:
    ratios, metrics = write_runs(tmp_path)
    command = ["--ratios", ratios, "--metrics", metrics, "--surrogate", "linear", "--proposer"]
    asked = ["random,regmix", "--budget", "8", "--seeds", "2", "--out", tmp_path / "out"]
    code, result, error = run("replay", *command, *asked)
    assert code == 0, error
    assert max(map(len, result.splitlines())) <= max(100, len(str(tmp_path)) + 20)
    for word in ("random", "regmix", "recommended", "best trained", "found"):
        assert word in result
    page = (tmp_path / "out" / "replay.html").read_text()
    assert page.count('id="plotly"') == 1
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)  # it needs no network
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings[:4] == ["Proposers", "Regret by cost", "Mixtures", "Notes"]
    top = page[page.index("<header>") : page.index("</header>")]
    assert "lower is better. Natural mixture (the mean of the runs): " in top
    assert "Decision: " in top
    curves = pl.read_csv(tmp_path / "out" / "curves.csv")
    assert set(curves["proposer"]) == {"random", "regmix"}
    assert set(curves["regret"]) == {"trained", "recommended"}
    values = json.loads((tmp_path / "out" / "replay.json").read_text())
    ends = curves.filter((pl.col("proposer") == "random") & (pl.col("regret") == "trained"))
    summary = values["proposers"]["random"]["summary"]
    assert math.isclose(ends["mean"][-1], summary["trained"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proposer", "rendom"], "Choose one of bayes"),
        (["--proposer", " , "], "no proposer is named"),
        (["--surrogate", "nothing"], "no surrogate is called 'nothing'"),
        (["--seeds", "0"], "--seeds"),
        (["--budget", "0.5"], "buys no run"),
        (["--budget", "-1"], "budget"),
        (["--free", "99"], "99 free runs"),
        (["--objective", "d=1"], "no metric is called 'd'"),
        (["--model-params", "7B"], "the runs have no model_params"),
    ],
)
def test_what_cannot_be_replayed_is_one_clear_message(
    arguments: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    ratios, metrics = write_runs(tmp_path, n=8)
    command = ["--ratios", ratios, "--metrics", metrics, "--surrogate", "linear"]
    asked = {"--proposer": "random", "--budget": "6", "--seeds": "1"}
    asked |= {arguments[0]: arguments[1]}
    given = [word for pair in asked.items() for word in pair if word]
    code, out, error = run("replay", *command, *given)
    assert code == 1
    assert out == ""
    assert message in error


def test_a_target_that_was_hardly_run_cannot_be_replayed(run: Run, tmp_path: Path) -> None:
    ratios, metrics = write_runs(tmp_path, n=8, sizes=[("1M", "1B"), ("60M", "1B")])
    command = ["replay", "--ratios", ratios, "--metrics", metrics, "--proposer", "random"]
    code, out, error = run(*command, "--budget", "6", "--seeds", "1", "--model-params", "7B")
    assert (code, out) == (1, "")
    assert "a replay needs 2" in error


def test_available_tokens_without_a_budget_are_said_to_constrain_nothing(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    code, out, _ = run(
        "propose", fit, "-n", "1", "--available", "code=1B", "--out", tmp_path / "n.csv"
    )
    assert code == 0
    assert "--available constrains nothing" in out


def test_names_and_objectives_of_proposals_are_shown_whole(
    fit: Path, run: Run, tmp_path: Path
) -> None:
    code, out, _ = run("propose", fit, "-n", "3", "--out", tmp_path / "next.csv")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("p000") and "±" in line]
    shown = [row for row in rows if row[1:] and row[2] == "±"]
    assert [row[0] for row in shown] == ["p0001", "p0002", "p0003"]
    assert all(float(row[1]) and float(row[3]) for row in shown)


@pytest.mark.parametrize("command", ["predict", "propose"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_fitted(
    command: str, fit: Path, run: Run, tmp_path: Path
) -> None:
    more = ["--ratios", fit.parent / "ratios.csv"] if command == "predict" else []
    code, out, error = run(command, fit, *more, "--out", tmp_path)
    assert (code, out) == (1, "")
    assert "is a folder. Name a file" in error
    (tmp_path / "file").write_text("")
    code, out, error = run(command, fit, *more, "--out", tmp_path / "file" / "next.csv")
    assert (code, out) == (1, "")
    assert "is a file" in error
