"""A metric of finished runs that seeds move as much as mixtures is no part of the default mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import mixopt
from mixopt.surrogates.reliability import LEAST
from tests.pipelines.made_runs import DOMAINS, Run

MIXTURES, REPEATS = 20, 6


def tables(folder: Path, repeats: int = REPEATS, *, all_noise: bool = False) -> tuple[Path, Path]:
    """Two metrics of 20 mixtures, one of them noise, and further seeds of the first mixture."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(len(DOMAINS)), MIXTURES)
    weights = weights[[*range(MIXTURES), *[0] * repeats]]
    n = len(weights)
    seeds = [*[0] * MIXTURES, *range(1, repeats + 1)]
    runs = pl.DataFrame({"run": [f"r{k}" for k in range(n)], "seed": seeds})
    clear = 3 - weights[:, 0] + (2.0 if all_noise else 0.01) * rng.standard_normal(n)
    columns = {"prose": clear, "quiz": 3 + 0.1 * rng.standard_normal(n)}
    ratios, metrics = folder / "R.csv", folder / "M.csv"
    runs.with_columns(pl.Series(d, weights[:, j]) for j, d in enumerate(DOMAINS)).write_csv(ratios)
    runs.drop("seed").with_columns(pl.Series(k, v) for k, v in columns.items()).write_csv(metrics)
    return ratios, metrics


def fitted(run: Run, folder: Path, files: tuple[Path, Path], *options: object) -> dict[str, Any]:
    ratios, metrics = files
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", folder / "fit", *options)
    result = run("fit", *arguments, "--surrogate", "linear", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_it_is_left_out_of_the_default_objective_and_said_so(tmp_path: Path, run: Run) -> None:
    result = fitted(run, tmp_path, tables(tmp_path))
    assert result["objective"] == {"prose": 1.0}
    assert result["reliability"]["quiz"]["signal_over_noise"] < LEAST
    assert result["reliability"]["prose"]["signal_over_noise"] > 10
    assert result["reliability"]["quiz"]["freedom"] == REPEATS
    assert "the mean of all metrics but 1." in " ".join(result["notes"])
    [note] = [note for note in result["notes"] if note.startswith("Left out of the objective")]
    assert "quiz (" in note
    page = (tmp_path / "fit" / "report.html").read_text()
    assert note in page
    assert ">Noise and reliability</h2>" in page
    assert "quiz" in result["diagnostics"]  # it is predicted all the same


def test_a_ceiling_stands_beside_its_rank_correlations(tmp_path: Path, run: Run) -> None:
    result = fitted(run, tmp_path, tables(tmp_path))
    ceilings = {name: it["ceiling"] for name, it in result["reliability"].items()}
    assert {name: it["ceiling"] for name, it in result["diagnostics"].items()} == ceilings
    frame = pl.read_csv(tmp_path / "fit" / "diagnostics.csv")
    assert dict(frame.select("metric", "ceiling").iter_rows()) == pytest.approx(ceilings)
    page = (tmp_path / "fit" / "report.html").read_text()
    for name in ("objective", "quiz"):
        assert f">{ceilings[name]:.3f}<" in page  # beside its rank correlation


def test_the_default_surrogate_is_chosen_beside_the_ceiling(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    found = mixopt.fit(ratios, metrics)
    [why] = [note for note in found.notes if "predicted held-out runs best" in note]
    assert why.endswith(f", ceiling {found.reliability['objective'].ceiling:.3f}.")


def test_whoever_names_it_gets_it_with_a_warning(tmp_path: Path, run: Run) -> None:
    asked = ("--objective", "prose=1", "--objective", "quiz=1")
    result = fitted(run, tmp_path, tables(tmp_path), *asked)
    assert result["objective"] == {"prose": 0.5, "quiz": 0.5}
    warned = [note for note in result["notes"] if "ranks mixtures badly" in note]
    assert [note.split(" ranks")[0] for note in warned] == ["quiz", "The objective"]
    assert all("run mixtures with several seeds" in note for note in warned)


@pytest.mark.parametrize("repeats", [0, 1])
def test_without_repeats_nothing_is_known_and_nothing_left_out(
    tmp_path: Path, run: Run, repeats: int
) -> None:
    result = fitted(run, tmp_path, tables(tmp_path, repeats=repeats))
    assert result["objective"] == {"prose": 0.5, "quiz": 0.5}
    assert not [note for note in result["notes"] if "ranks mixtures badly" in note]
    if repeats == 0:
        assert result["reliability"] == {}
        assert result["diagnostics"]["objective"]["ceiling"] is None


def test_where_all_are_noise_all_stay_and_each_is_warned_of(tmp_path: Path, run: Run) -> None:
    result = fitted(run, tmp_path, tables(tmp_path, all_noise=True))
    assert result["objective"] == {"prose": 0.5, "quiz": 0.5}
    warned = [note.split()[0] for note in result["notes"] if "ranks mixtures badly" in note]
    assert warned[:2] == ["prose", "quiz"]


def test_a_replay_minimises_what_a_fit_does(tmp_path: Path, run: Run) -> None:
    ratios, metrics = tables(tmp_path)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--proposer", "random")
    result = run("replay", *arguments, "--budget", 6, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["objective"] == {"prose": 1.0}
