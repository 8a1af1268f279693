"""The published run tables as `TrialTable`s: what benchmarks (and some tests) are measured on.

Read from the folder that MIXOPT_DATA names, ../shared/data by default; never copied. Their
fidelities are nominal: parameters as the model is called, tokens as the papers say.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.core.trial_table import TrialTable

DATA = Path(os.environ.get("MIXOPT_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
PARAMS = {"1m": 1e6, "60m": 6e7, "70M": 7e7, "160M": 1.6e8, "305M": 3.05e8, "0.5B": 5e8, "3B": 3e9}
REGMIX_TOKENS = 1e9  # 2407.01492: 1B tokens a run
BATCH_TOKENS = 1e6  # 2403.16952: 100k steps are 100B tokens
ADMIRE_TOKENS = 1e8  # not published, and the same for all runs of the table

# The table gives weights without names. Which evaluation domains fall with which weight tells them
# (Spearman below -.8 for each but books3): 5Mix are the groups of the Pile, RedPajama its sources,
# whose published shares (.67 CommonCrawl, .15 C4, ...) are among the mixtures, in this order.
DOMAINS = {
    "2Mix": ("github", "pile_cc"),
    "3Mix": ("github", "books3", "pile_cc"),
    "5Mix": ("academic", "prose", "dialogue", "symbolic", "internet"),
    "RedPajama": ("commoncrawl", "c4", "github", "arxiv", "books", "stackexchange", "wikipedia"),
}


def regmix(kind: str, size: str) -> TrialTable:
    """RegMix's runs: 17 Pile domains, validation losses (nats) of 13.

    Args:
        kind: `train` (512 mixtures, 1m only) or `test` (256 mixtures, equal for 1m and 60m).
        size: `1m` or `60m`.
    """
    mixtures = pl.read_csv(DATA / "regmix" / f"{kind}_mixture_{size}.csv").sort("index")
    losses = pl.read_csv(DATA / "regmix" / f"{kind}_pile_loss_{size}.csv").sort("index")
    if mixtures["index"].to_list() != losses["index"].to_list():
        raise ValueError(f"RegMix {kind} {size}: mixtures and losses are of different runs")
    return _table(
        tuple(name.removeprefix("train_the_pile_") for name in mixtures.columns[1:]),
        tuple(
            "loss/" + name.removeprefix("metric/the_pile_").removesuffix("_val_loss")
            for name in losses.columns[1:]
        ),
        mixtures.drop("index").to_numpy(),
        losses.drop("index").to_numpy(),
        np.full(len(mixtures), PARAMS[size]),
        np.full(len(mixtures), REGMIX_TOKENS),
    )


def admire(model: str) -> TrialTable:
    """ADMIRE's runs of Qwen2.5 (2508.11551): 19 instruction sources, 17 scores, higher is better.

    Args:
        model: `0.5B` (256 runs) or `3B` (128 runs).
    """
    rows = _admire_rows(model)
    domains = [name for name in rows.columns if name.startswith("ratio_")]
    # the table's own averages are no metrics, and wrong in three rows
    metrics = [k for k in rows.columns if k.startswith("metric_") and "metric_avg" not in k]
    return _table(
        tuple(name.removeprefix("ratio_") for name in domains),
        tuple("score/" + name.removeprefix("metric_") for name in metrics),
        rows.select(domains).to_numpy(),
        rows.select(metrics).to_numpy(),
        np.full(len(rows), PARAMS[model]),
        np.full(len(rows), ADMIRE_TOKENS),
    )


def admire_cost(model: str) -> np.ndarray:
    """(n,) `train_time` of the runs of `admire(model)`, in the table's unit and order."""
    return _admire_rows(model)["train_time"].to_numpy()


def mixing_laws(family: str, size: str | None = None, step: int | None = None) -> TrialTable:
    """Data Mixing Laws' runs (2403.16952): validation losses (nats) of up to 22 Pile domains.

    Rows are sorted by size, mixture and step; those of one size and mixture are one run. A loss
    that the table lacks is NaN. Weights are renormalised (one mixture of RedPajama sums to 1.02,
    all others to 1).

    Args:
        family: `2Mix`, `3Mix`, `5Mix` or `RedPajama`.
        size: `70M`, `160M` or `305M`; all sizes if None.
        step: only this step; the whole learning curves if None.
    """
    rows = pl.read_parquet(DATA / "mixing_laws" / "runs.parquet").filter(pl.col("family") == family)
    if size is not None:
        rows = rows.filter(pl.col("size") == size)
    if step is not None:
        rows = rows.filter(pl.col("step") == step)
    if rows.is_empty():
        raise ValueError(f"no runs of {family} at size {size} and step {step}")
    wide = (
        rows.pivot(on="eval_domain", index=["size", "mixture", "step"], values="loss")
        .with_columns(params=pl.col("size").replace_strict(PARAMS, return_dtype=pl.Float64))
        .sort("params", "mixture", "step")
    )
    metrics = sorted(rows["eval_domain"].unique())
    weights = np.array([[float(share) for share in mix.split("-")] for mix in wide["mixture"]])
    if weights.shape[1] != len(DOMAINS[family]):
        raise ValueError(f"{family} mixes {weights.shape[1]} domains, not {len(DOMAINS[family])}")
    _, runs = np.unique(
        np.array([f"{p:.0f} {m}" for p, m in wide.select("params", "mixture").rows()]),
        return_inverse=True,
    )
    return _table(
        DOMAINS[family],
        tuple(f"loss/{name}" for name in metrics),
        weights,
        wide.select(metrics).to_numpy().astype(float),
        wide["params"].to_numpy(),
        wide["step"].to_numpy() * BATCH_TOKENS,
        runs,
    )


def stacked(*tables: TrialTable) -> TrialTable:
    """Runs of several tables over the same domains and metrics as one; runs stay apart."""
    first = tables[0]
    if any(t.domains != first.domains or t.metrics != first.metrics for t in tables):
        raise ValueError("tables are over different domains or metrics")
    starts = np.cumsum([0, *(int(t.runs.max()) + 1 for t in tables[:-1])])
    columns = {
        name: np.concatenate([getattr(t, name) for t in tables])
        for name in ("weights", "values", "params", "tokens", "seeds")
    }
    runs = np.concatenate([t.runs + start for t, start in zip(tables, starts, strict=True)])
    return TrialTable(first.domains, first.metrics, **columns, runs=runs)


def _table(
    domains: tuple[str, ...],
    metrics: tuple[str, ...],
    weights: np.ndarray,
    values: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    runs: np.ndarray | None = None,
) -> TrialTable:
    total = weights.sum(axis=1, keepdims=True)
    if not np.allclose(total, 1, atol=0.05) or (weights < 0).any():
        raise ValueError(f"mixtures that sum to {total.min():g} to {total.max():g}")
    return TrialTable(
        domains=domains,
        metrics=metrics,
        weights=weights / total,
        values=values,
        params=params,
        tokens=tokens,
        seeds=np.zeros(len(weights), dtype=int),
        runs=np.arange(len(weights)) if runs is None else runs,
    )


def _admire_rows(model: str) -> pl.DataFrame:
    rows = pl.read_csv(DATA / "admire_ift" / "runs_0.5b_3b.csv")
    found = rows.filter(pl.col("model") == f"Qwen2.5-{model}")
    if found.is_empty():
        raise ValueError(f"no runs of Qwen2.5-{model}, only {rows['model'].unique().to_list()}")
    return found
