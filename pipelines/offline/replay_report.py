"""Results of replays: one JSON object, a table, and a folder with CSV and a page."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import with_error
from mixopt.core.trials import Fidelity
from mixopt.io import files
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.offline.fidelity_words import fidelity_text
from mixopt.offline.pool import Pool
from mixopt.offline.replay import Replay
from mixopt.offline.replay_summary import Curve, Summary, summary
from mixopt.pipelines.offline.replayed import RECOMMENDED, TRAINED, Replayed, regret_words
from mixopt.pipelines.views.console import styled
from mixopt.pipelines.views.wording import better

FORMAT = 1  # of what --json prints


def values_of(done: Replayed) -> dict[str, Any]:
    """All results as JSON-able values, NaN as null: the content of `--json`."""
    pool, plan = done.pool, done.plan
    best = pool.specs[pool.best]
    trained, recommended = done.curves(TRAINED), done.curves(RECOMMENDED)
    values: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "objective": dict(pool.objective.weights),
            "higher_is_better": pool.objective.sign == -1,
            "target": _fidelity(pool.target),
            "pool": {
                "runs": len(pool.specs),
                "targets": len(pool.targets),
                "fidelities": [_fidelity(fidelity) for fidelity in pool.fidelities],
                "best": {
                    "run": pool.names[pool.best],
                    "objective": done.best,
                    "mixture": best.mixture.as_dict(),
                },
                "spread": float(np.std(pool.values[pool.targets])),
                "cost": float(pool.costs[np.isfinite(pool.costs)].sum()),
            },
            "cost_unit": done.cost_unit,
            "budget": plan.budget,
            "initial": plan.initial,
            "free": plan.free,
            "batch": plan.batch,
            "every": plan.every,
            "surrogate": done.surrogate,
            "notes": list(done.notes),
            "proposers": {
                name: {
                    "summary": {
                        key: value
                        for key, value in dataclasses.asdict(summary(found)).items()
                        if key != "proposer"
                    },
                    "curve": {
                        "cost": trained[name].cost,
                        TRAINED: _columns(trained[name]),
                        RECOMMENDED: _columns(recommended[name]),
                    },
                    "seeds": [_seed(pool, replay) for replay in found],
                }
                for name, found in done.replays.items()
            },
        }
    )
    return values


def _fidelity(fidelity: Fidelity) -> dict[str, int]:
    return {"model_params": fidelity.params, "tokens": fidelity.tokens}


def _columns(found: Curve) -> dict[str, Any]:
    columns = dataclasses.asdict(found)
    del columns["cost"]
    return columns


def _seed(pool: Pool, replay: Replay) -> dict[str, Any]:
    def run(candidate: int | None) -> str | None:
        return None if candidate is None else pool.names[candidate]

    columns = ("cost", "runs", TRAINED, RECOMMENDED)
    return {
        "seed": replay.seed,
        "until_best": replay.until_best,
        "trained_run": run(replay.trained),
        "recommended_run": run(replay.recommended),
        "drawn": replay.drawn,
        "emptied": replay.emptied,
        "order": [pool.names[candidate] for candidate in replay.order],
        "points": {name: [getattr(p, name) for p in replay.points] for name in columns},
    }


def report_text(done: Replayed) -> str:
    """The JSON object of `values_of`, on one line."""
    return json.dumps(values_of(done), allow_nan=False)


def print_replays(done: Replayed, console: Console) -> None:
    """Print a table with a row per proposer, its units, and the notes."""
    pool = done.pool
    seeds = max(len(found) for found in done.replays.values())
    table = Table(
        title=f"Regret at a budget of {done.budget}, over {seeds} seed{'s' * (seeds > 1)}",
        title_justify="left",
    )
    table.add_column("proposer")
    for column in ("recommended", "best trained", "best found", "cost until found", "spent"):
        table.add_column(column, justify="right")
    for row in done.summaries():
        table.add_row(
            row.proposer,
            with_error(row.recommended, row.recommended_error),
            with_error(row.trained, row.trained_error),
            f"{row.found:.0%}",
            _until(row),
            f"{row.cost:.4g}",
        )
    console.print(table)
    spread = float(np.std(pool.values[pool.targets]))
    console.print(
        f"{regret_words(len(pool.targets))} ({pool.names[pool.best]}: {done.best:.4f}, "
        f"{better(pool.objective)}; standard deviation over mixtures {spread:.4f}); mean ± "
        "standard error over seeds. Best found: share of seeds that trained that mixture.",
        style="dim",
    )
    several = len(pool.fidelities) > 1
    size = fidelity_text(pool.target)
    console.print(
        f"Surrogate: {done.surrogate}."
        + (f" Target: {size}; the pool has {len(pool.specs)} runs in all." if several else ""),
        style="dim",
    )
    for note in done.notes:
        console.print(styled(("·", "yellow"), f" {note}"))


def write_replays(folder: Path, done: Replayed) -> list[Path]:
    """`replay.json`, `curves.csv` and `replay.html` in `folder`, each whole or not at all."""
    from mixopt.pipelines.offline.replay_page import render  # imports plotly

    columns: dict[str, list[Any]] = {name: [] for name in ("proposer", "regret", "cost")}
    columns |= {name: [] for name in _columns(next(iter(done.curves(TRAINED).values())))}
    for what in (RECOMMENDED, TRAINED):
        for name, found in done.curves(what).items():
            columns["proposer"] += [name] * len(found.cost)
            columns["regret"] += [what] * len(found.cost)
            columns["cost"] += found.cost.tolist()
            for key, values in _columns(found).items():
                columns[key] += values.tolist()
    frame = pl.DataFrame(columns).fill_nan(None)
    written = {
        "replay.json": (report_text(done) + "\n").encode(),
        "curves.csv": csv_bytes(frame),
        "replay.html": render(done, folder.resolve().name).encode(),
    }
    for name, data in written.items():
        files.write_bytes(folder / name, data)
    return [folder / name for name in written]


def _until(row: Summary) -> str:
    if row.until_best is not None:
        return with_error(row.until_best, row.until_best_error or math.nan)
    if row.until_best_median is not None:
        return f"median {row.until_best_median:.4g}"
    return "–"
