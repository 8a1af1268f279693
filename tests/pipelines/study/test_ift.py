"""Instruction tuning, without a corpus, higher is better: from `init` to verdict, by two ways.

By a command trainer and by `ask` and `tell`, with the commands of docs/trainers.md and
docs/elsewhere.md alone. Finished runs stand for trainings: see `ift_lookup.py`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.study import ift_lookup

pytestmark = pytest.mark.xdist_group("ray")

DATA = Path(os.environ.get("MIXOPT_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
RUNS = DATA / "admire_ift" / "runs_0.5b_3b.csv"
SMALLER = {
    "trials: 16": "trials: 10",
    "rounds: 2": "rounds: 1",
    "surrogate: auto": "surrogate: linear",
    "address: null": "address: local",
}


@pytest.fixture
def table() -> ift_lookup.Table:
    if not RUNS.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    return ift_lookup.Table(RUNS)


def begin(folder: Path, trainer: str, table: ift_lookup.Table, run: Run) -> Path:
    """The study file that `init` writes, made smaller, and with the table in its settings."""
    folder.mkdir()
    file = folder / "ift.yaml"
    domains = [word for name in table.domains for word in ("--domain", f"{name}=20M")]
    metrics = [word for name in table.metrics for word in ("--metric", f"{name}=higher")]
    assert run("init", file, "--trainer", trainer, *domains, *metrics).code == 0
    text = file.read_text().replace("settings: {}", f"settings: {{table: {RUNS.resolve()}}}")
    for was, now in SMALLER.items():
        text = text.replace(was, now)
    file.write_text(text.replace("# guardrails: {gsm8k: 0.01}", "guardrails: {truthfulqa: 0.05}"))
    shutil.copy(ift_lookup.__file__, folder)
    return file


def by_a_command(folder: Path, table: ift_lookup.Table, run: Run) -> Path:
    """The study file of a study that `mixopt run` has ended."""
    file = begin(folder, "{python} ift_lookup.py {job}", table, run)
    assert "✓ ift_lookup.py is there" in run("plan", file).out
    ended = run("run", file)
    assert ended.code == 0, ended.err
    return file


def by_ask_and_tell(folder: Path, table: ift_lookup.Table, run: Run) -> Path:
    """The same by `mixopt ask` and `mixopt tell`, until `ask` hands out nothing more."""
    file = begin(folder, "elsewhere", table, run)
    for number in range(20):
        next_file = folder / f"next-{number}.csv"
        asked = run("ask", file, "-n", "8", "--out", next_file)
        assert asked.code == 0, asked.err
        if not next_file.exists():
            assert "mixture is selected" in asked.err
            assert "Weights of the" in asked.err
            return file
        with next_file.open(newline="") as opened:
            rows = [with_metrics(row, table) for row in csv.DictReader(opened)]
        with next_file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        told = run("tell", file, next_file)
        assert f"{len(rows)} results recorded" in told.out
    raise AssertionError("no verdict after 20 tables")


def with_metrics(row: dict[str, str], table: ift_lookup.Table) -> dict[str, Any]:
    """A row of the table that `ask` wrote, with a column per metric."""
    mixture = {name: float(row[f"mixture.{name}"]) for name in table.domains}
    return {**row, **table.measure(mixture, int(row["seed"]))}


@pytest.mark.slow
def test_both_ways_end_with_the_same_verdict(
    tmp_path: Path, ray_here: None, table: ift_lookup.Table, run: Run
) -> None:
    ways = {"command": by_a_command, "asked": by_ask_and_tell}
    verdicts: list[dict[str, Any]] = []
    for name, way in ways.items():
        file = way(tmp_path / name, table, run)
        verdict = read_verdict(load_study(file).home)
        assert verdict is not None
        values = verdict.to_json()
        for candidate in values["candidates"]:
            del candidate["device_seconds"]  # of what is trained elsewhere it is not known
        verdicts.append(values)
        exported = json.loads(run("export", file, "--mixture", "json").out)
        weights = {n: it["weight"] for n, it in exported["domains"].items()}
        assert weights == pytest.approx(verdict.mixture.as_dict())
        shown = " ".join(run("status", file).out.split())
        assert "−" not in shown.split("mixture is selected")[0]
        assert "higher is better" in shown
    assert verdicts[0] == verdicts[1]
    assert {it["name"] for it in verdicts[0]["candidates"]} >= {"natural", "recommended"}
    assert all(it["mean"] < 0 for it in verdicts[0]["candidates"])  # kept lower is better
    assert yaml.safe_load((tmp_path / "asked" / "ift.yaml").read_text())["trainer"]["elsewhere"]


def test_a_lookup_is_between_the_recorded_values(table: ift_lookup.Table) -> None:
    uniform = dict.fromkeys(table.domains, 1 / len(table.domains))
    one, other = table.measure(uniform, 0), table.measure(uniform, 1)
    assert one == table.measure(uniform, 0)
    assert one != other
    for name, values in table.metrics.items():
        assert values.min() < one[name] < values.max()
