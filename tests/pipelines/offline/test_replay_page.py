"""The page of a replay: proposers against each other, the answer first."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from mixopt.core.objective import Objective
from mixopt.offline.pool import Pool
from mixopt.offline.replay import Plan, Point, Replay
from mixopt.offline.runs import read_runs
from mixopt.pipelines.offline import replay_page
from mixopt.pipelines.offline.replay_report import print_replays, values_of
from mixopt.pipelines.offline.replayed import Replayed
from mixopt.pipelines.views.page.parts import Cell
from tests.pipelines.made_runs import tables


def test_the_page_sets_proposers_against_random_by_paired_seeds(tmp_path: Path) -> None:
    ratios, metrics = tables(tmp_path)
    pool = Pool.of(read_runs(ratios, metrics).table, Objective({"prose": 1.0}, prefix=""))
    worst = int(pool.targets[np.argmax(pool.values[pool.targets])])

    def search(name: str, seed: int, regret: float, candidate: int) -> Replay:
        point = Point(cost=6.0, runs=6, trained=regret, recommended=regret)
        return Replay(name, seed, (point,), None, candidate, candidate, (candidate,), 0, False)

    chance = [0.5, 0.1, 0.3, 0.2]
    replays = {
        "random": [search("random", s, r, worst) for s, r in enumerate(chance)],
        "bayes": [search("bayes", s, r - 0.1, pool.best) for s, r in enumerate(chance)],
    }
    done = Replayed(pool, Plan(6.0), "linear", "runs", (), replays)
    low, mean, high = replay_page.difference(done, "bayes", "random") or (0.0, 0.0, 0.0)
    assert (low, mean, high) == pytest.approx((-0.1, -0.1, -0.1))  # by what all seeds differ
    found = replay_page.page_of(done, "replay")
    assert found.decision == "Decision: let bayes propose the next mixtures of runs like these."
    assert [it.proposer for it in replay_page.by_regret(done)] == ["bayes", "random"]
    alone = dataclasses.replace(done, replays={"random": replays["random"]})
    said = replay_page.page_of(alone, "replay").decision
    assert said == "Decision: nothing does better than random here; stay with it."
    cells = [row[1] for row in found.sections[2].tables[0].rows]
    shown = [cell.text for cell in cells if isinstance(cell, Cell)]
    best = pool.specs[pool.best].mixture.as_dict()
    assert shown == [f"{weight:.1%}" for weight in sorted(best.values(), reverse=True)]


def test_an_objective_that_is_better_higher_reads_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios, metrics = tables(tmp_path)
    pool = Pool.of(read_runs(ratios, metrics).table, Objective({"prose": -1.0}, prefix=""))
    point = Point(cost=6.0, runs=6, trained=0.25, recommended=0.25)
    search = Replay("random", 0, (point,), None, 0, 0, (0,), 0, False)
    done = Replayed(pool, Plan(6.0), "linear", "the files' cost column", (), {"random": [search]})
    best = max(each["prose"] for each in pool.metrics)
    page = replay_page.page_of(done, "replay")
    assert page.about.startswith("Objective: prose 1, higher is better. Natural")
    assert page.lead == [
        "Within a budget of 6 (the files' cost column) random recommends mixtures whose objective "
        f"is on average 0.2500 below that of the best of {len(pool.targets)} (± half the 90 % "
        "interval over seeds)."
    ]
    assert page.answers[2].short == "Spent: 6 (the files' cost column)"
    assert f"its best is {best:.4f}." in page.answers[3].detail
    assert dict(page.settings)["objective"] == "1 × prose, higher is better"
    print_replays(done, Console(width=200))
    shown = " ".join(capsys.readouterr().out.split())
    assert "Regret: by how much the objective is worse than that of the best of" in shown
    assert f": {best:.4f}, higher is better;" in shown
    values = values_of(done)
    assert (values["higher_is_better"], values["pool"]["best"]["objective"]) == (True, best)


def test_an_interval_over_seeds_is_students() -> None:
    sample = np.array([1.0, 2.0, 4.0])
    interval = stats.t.interval(0.9, 2, sample.mean(), stats.sem(sample))
    half = replay_page.half_width(sample.std(ddof=1), 3)
    assert half == pytest.approx((interval[1] - interval[0]) / 2)
    assert math.isnan(replay_page.half_width(1.0, 1))
