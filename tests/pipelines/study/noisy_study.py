"""A study that is trained elsewhere, with a metric that scatters by as much as a test asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt.pipelines.study.elsewhere import ask_trials
from mixopt.pipelines.study.tell import tell_results

FILE = """\
name: noisy
domains: {web: 1.2T, code: 300B, maths: 50B}
trainer: elsewhere
objective: {accuracy: 1}
metrics: {accuracy: higher}
proxy: {tokens: 1B}
space: {budget: 100B}
search: {trials: 8, repeats: 3, rounds: 1, batch: 2, surrogate: linear}
select: {seeds: 2}
mlflow: {enabled: false}
"""


def tell_all(file: Path, noise: float, others: Mapping[str, float] | None = None) -> None:
    """Hand out what is asked for, and tell what a trainer would have measured.

    Args:
        file: of the study.
        noise: standard deviation of the accuracy over seeds.
        others: further metrics → what they gain from all maths; they scatter by a hundredth of it.
    """
    asked, told = file.parent / "asked.csv", file.parent / "told.json"
    asked.unlink(missing_ok=True)
    ask_trials(file, 100, asked)
    rows: list[dict[str, Any]] = pl.read_csv(asked).to_dicts()
    for row in rows:
        scatter = noise * np.random.default_rng(row["trial"]).normal()
        row["accuracy"] = 50 + 20 * row["mixture.maths"] + scatter
        for name, slope in (others or {}).items():
            row[name] = 5 + slope * (row["mixture.maths"] + 0.01 * scatter / (noise or 1))
    told.write_text(json.dumps(rows))
    tell_results(file, told)
