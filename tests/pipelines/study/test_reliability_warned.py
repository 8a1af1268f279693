"""A metric that seeds move as much as mixtures is warned about as soon as the repeats have run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mixopt.pipelines.study.elsewhere import ask_trials, tell_results
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import ledger_trials

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


def tell_all(file: Path, noise: float) -> None:
    """Hand out what is asked for, and tell what a trainer would have measured."""
    asked, told = file.parent / "asked.csv", file.parent / "told.json"
    asked.unlink(missing_ok=True)
    ask_trials(file, 100, asked)
    rows: list[dict[str, Any]] = pl.read_csv(asked).to_dicts()
    for row in rows:
        scatter = noise * np.random.default_rng(row["trial"]).normal()
        row["accuracy"] = 50 + 20 * row["mixture.maths"] + scatter
    told.write_text(json.dumps(rows))
    tell_results(file, told)


@pytest.mark.parametrize(("noise", "warned"), [(20.0, True), (0.1, False)])
def test_it_is_warned_about_once_the_repeats_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], noise: float, warned: bool
) -> None:
    file = tmp_path / "noisy.yaml"
    file.write_text(FILE)
    tell_all(file, noise)
    assert "ranks mixtures badly" not in capsys.readouterr().err
    tell_all(file, noise)  # the first round: the repeats are told by now
    assert ("accuracy ranks mixtures badly" in capsys.readouterr().err) == warned
    found = study_reliability(load_study(file), ledger_trials(file))["accuracy"]
    assert (found.noise.runs, found.poor) == (4, warned)
