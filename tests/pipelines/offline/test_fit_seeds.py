"""`mixopt fit` says where predicted values may hide the error of a seed that all runs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.pipelines.made_runs import DOMAINS, Run, tables

SHARED = "share one seed"


def fit_of(
    run: Run, folder: Path, mixture_of_run: list[int], seeds: list[int] | None
) -> tuple[dict[str, Any], np.ndarray]:
    """A fit of runs of some of 20 made mixtures, and the runs' objective."""
    ratios, metrics = tables(folder, n=len(mixture_of_run))
    frame = pl.read_csv(ratios)
    columns = {d: frame[d].to_numpy()[mixture_of_run] for d in DOMAINS}
    extra = {} if seeds is None else {"seed": seeds}
    pl.DataFrame({"run": frame["run"], **extra, **columns}).write_csv(ratios)
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", folder / "fit")
    result = run("fit", *arguments, "--surrogate", "linear", "--json")
    assert result.code == 0, result.err
    values = json.loads((folder / "fit" / "mixture.json").read_text())
    return {**json.loads(result.out), **values}, pl.read_csv(metrics).drop("run").to_numpy().mean(
        axis=1
    )


@pytest.mark.parametrize("seeds", [None, [7] * 20])
def test_runs_of_one_seed_or_of_unknown_ones_are_warned_of(
    tmp_path: Path, run: Run, seeds: list[int] | None
) -> None:
    result, _ = fit_of(run, tmp_path, list(range(20)), seeds)
    [note] = [note for note in result["notes"] if SHARED in note]
    assert "repeat a mixture with other seeds" in note
    assert result["seed_scatter"] is None


def test_runs_with_seeds_of_their_own_hide_nothing(tmp_path: Path, run: Run) -> None:
    result, _ = fit_of(run, tmp_path, list(range(20)), list(range(20)))
    assert not [note for note in result["notes"] if SHARED in note]


def test_repeats_tell_how_far_a_seed_moves_a_run(tmp_path: Path, run: Run) -> None:
    mixtures = [*range(20), 0, 0, 3]
    result, values = fit_of(run, tmp_path, mixtures, [0] * 20 + [1, 2, 1])
    squares = sum(float(np.var(v)) * len(v) for v in (values[[0, 20, 21]], values[[3, 22]]))
    scatter = result["seed_scatter"]
    assert scatter["std"] == pytest.approx((squares / 3) ** 0.5)
    assert scatter["runs"] == 5
    [note] = [note for note in result["notes"] if SHARED in note]
    assert f"seed standard deviation is {scatter['std']:.4f}, from 5 repeated runs" in note
