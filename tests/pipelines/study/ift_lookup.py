"""A trainer that trains nothing: it looks instruction-tuning runs up in a table of finished ones.

    python ift_lookup.py job.json

The table has a fixed list of mixtures, and a study asks for any. So the answer is an
interpolation: the mean of the recorded runs, each weighed by how near its mixture is (Hellinger
distance, in units of that to the eighth nearest) and by chance, drawn from the job's seed (a
Bayesian bootstrap): with another seed it is a little different, as another training would be. No
number of it was fitted to the table.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "Qwen2.5-0.5B"
NEAREST = 8
METRICS = {  # the study's names → the table's columns
    "gsm8k": "metric_gsm8k::tulu",
    "mmlu": "metric_mmlu:cot::summarize",
    "ifeval": "metric_ifeval::tulu",
    "truthfulqa": "metric_truthfulqa::tulu",
}


class Table:
    """The recorded runs of one model.

    Attributes:
        domains: names of the sources.
        roots: (n, m) square roots of the weights, renormalised.
        metrics: name → (n,) values.
    """

    def __init__(self, path: Path) -> None:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["model"] == MODEL]
        columns = [name for name in rows[0] if name.startswith("ratio_")]
        self.domains = [name.removeprefix("ratio_") for name in columns]
        weights = np.array([[float(row[name]) for name in columns] for row in rows])
        self.roots = np.sqrt(weights / weights.sum(axis=1, keepdims=True))
        self.metrics = {
            name: np.array([float(row[column]) for row in rows]) for name, column in METRICS.items()
        }

    def measure(self, mixture: dict[str, float], seed: int) -> dict[str, float]:
        """What a training on `mixture` with `seed` would have measured, interpolated."""
        root = np.sqrt([mixture[name] for name in self.domains])
        distance = np.sqrt(np.maximum(0.0, 1.0 - self.roots @ root))
        reach = np.sort(distance)[NEAREST - 1]
        chance = np.random.default_rng(seed).exponential(size=len(distance))
        weight = np.exp(-((distance / reach) ** 2)) * chance
        share = weight / weight.sum()
        return {name: float(share @ values) for name, values in self.metrics.items()}


def main(job: dict[str, Any]) -> None:
    """Answer `job`, by the trainers' contract."""
    table = Table(Path(job["settings"]["table"]))
    result = {
        "metrics": table.measure(job["mixture"], job["seed"]),
        **{name: job[name] for name in ("mixture", "tokens", "seed")},
    }
    path = Path(job["folder"]) / "result.json"
    path.with_suffix(".part").write_text(json.dumps(result))
    os.replace(path.with_suffix(".part"), path)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
