"""Finished runs that tests make, and `mixopt fit` on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

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


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]


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
    result = run(
        *("fit", "--ratios", ratios, "--metrics", metrics, "--out", folder / "fit", "--json"),
        *("--surrogate", surrogate, *more),
    )
    assert result.code == 0, result.err
    return json.loads(result.out)
