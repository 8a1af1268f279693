"""The best mixture of a pool of finished runs: how much a search spends until it has trained it.

    python -m benchmarks.pool_search --task regmix-mean --seeds 20 --json
    python -m benchmarks.pool_search --task admire --seeds 5

Tasks: `regmix-mean` and `regmix-cc` (60M pool of 256 mixtures, 64 free 1M runs, 8 runs at the
target; the mean of 13 losses, and that on Pile-CC), `regmix-mean-32` (32 free ones), `admire`
(3B pool of 128 mixtures, 0.5B runs at their own price, costs are the table's `train_time`).
Regret is in nats (RegMix) or points of the mean score (ADMIRE), of the best mixture trained and
of the one recommended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.pool_peers import AdmireMES, PlainEI, RegMixTop
from benchmarks.tables import admire, admire_cost, regmix, stacked
from mixopt.core.objective import Objective
from mixopt.offline.replay import MakesProposer, Plan, Pool, Replay, replay
from mixopt.offline.replay_summary import Summary, summary
from mixopt.search.proposers.multi_fidelity import MaxValueEntropy, MultiFidelity
from mixopt.search.proposers.random import Random
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate

TARGET_RUNS = 8  # of the RegMix tasks
FIRST_CHEAP = 24  # of the ADMIRE task: what a search over fidelities begins with
FIRST_DEAR = 6  # and one that only looks at the target


@dataclass(frozen=True)
class Search:
    """A proposer and how it goes about the task."""

    name: str
    kind: MakesProposer
    surrogate: str
    plan: Plan


@dataclass(frozen=True)
class Task:
    """A pool, and who searches it."""

    pool: Pool
    searches: tuple[Search, ...]


def regmix_task(free: int, metric: str | None) -> Task:
    """60M pool; 1M runs can only be had for nothing."""
    low, high = regmix("train", "1m"), regmix("test", "60m")
    table = stacked(low, high)
    names = high.metrics if metric is None else (metric,)
    costs = np.r_[np.full(len(low), np.inf), np.ones(len(high))]
    # the pool's own cost is a run at the target; the 1M runs are given, and then not for sale
    pool = Pool.of(table, Objective(dict.fromkeys(names, 1.0)), costs=costs)
    plan = Plan(budget=TARGET_RUNS, initial=0, free=free)
    return Task(
        pool,
        (
            Search("multi-fidelity", MultiFidelity, "cokriging", plan),
            Search("multi-fidelity-mes", MaxValueEntropy, "cokriging", plan),
            Search("random", Random, "gp", plan),
            Search("GP-EI", PlainEI, "gp", plan),
            Search("RegMix top-k", RegMixTop, "gp", plan),
            Search("ADMIRE MF-MES", AdmireMES, "gp", plan),
        ),
    )


def admire_task() -> Task:
    """3B pool, 0.5B runs beside it; the mean score is to be large, so its weights are negative."""
    low, high = admire("0.5B"), admire("3B")
    costs = np.r_[admire_cost("0.5B"), admire_cost("3B")]
    objective = Objective(dict.fromkeys(high.metrics, -1.0))
    pool = Pool.of(stacked(low, high), objective, costs=costs)
    budget = float(pool.costs.sum())
    below, target = pool.fidelities[0], pool.target
    several = Plan(budget=budget, initial=FIRST_CHEAP, start=below, every=1000, until_best=True)
    one = Plan(budget=budget, initial=FIRST_DEAR, start=target, every=1000, until_best=True)
    return Task(
        pool,
        (
            Search("multi-fidelity", MultiFidelity, "cokriging", several),
            Search("multi-fidelity-mes", MaxValueEntropy, "cokriging", several),
            Search("random", Random, "gp", one),
            Search("GP-EI", PlainEI, "gp", one),
            Search("ADMIRE MF-MES", AdmireMES, "gp", several),
        ),
    )


TASKS: dict[str, Callable[[], Task]] = {
    "regmix-mean": partial(regmix_task, 64, None),
    "regmix-mean-32": partial(regmix_task, 32, None),
    "regmix-cc": partial(regmix_task, 64, "loss/pile_cc"),
    "admire": admire_task,
}


def run(task: Task, search: Search, seed: int) -> Replay:
    """One search from one seed."""

    def surrogate() -> Surrogate:
        return make(
            search.surrogate, seed=seed, fidelity=task.pool.target, objective=task.pool.objective
        )

    return replay(task.pool, search.kind, surrogate, search.plan, seed)


def results(
    task: Task, names: list[str], seeds: int, say: Callable[[str], None]
) -> Iterator[Summary]:
    """A summary for each search, as they end."""
    for search in task.searches:
        if names and search.name not in names:
            continue
        found = []
        for seed in range(seeds):
            start = time.perf_counter()
            found.append(run(task, search, seed))
            took, until = time.perf_counter() - start, found[-1].until_best
            say(f"{search.name} seed {seed}: best after {until} in {took:.0f} s")
        yield dataclasses.replace(summary(found), proposer=search.name)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="names of searches")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    quiet = asked.json or not sys.stderr.isatty()
    rows = []
    for row in results(
        TASKS[asked.task](),
        asked.only,
        asked.seeds,
        lambda text: None if quiet else print(text, file=sys.stderr),
    ):
        rows.append(dataclasses.asdict(row))
        if not asked.json:
            until = "" if row.until_best is None else f", best after {row.until_best:.0f}"
            print(
                f"{row.proposer:20} trained {row.trained:.5f} ± {row.trained_error:.5f}, "
                f"recommended {row.recommended:.5f}, found {row.found:.0%}{until}",
                flush=True,
            )
    if asked.json:
        print(json.dumps({"task": asked.task, "searches": rows}, indent=2))


if __name__ == "__main__":
    main()
