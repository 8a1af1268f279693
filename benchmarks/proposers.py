"""Proposers replayed on a pool of our own trainings: ours, RegMix, Optuna's samplers, Ax, chance.

    python -m benchmarks.proposers train /tmp/proposers               # 46 min of a busy core, once
    python -m benchmarks.proposers replay /tmp/proposers --seeds 20

The pool has 150 mixtures of the embedded corpus, trained at two sizes with three seeds each
(`benchmarks.trained_pool`). `train` again goes on where it ended. A search trains the same eight
mixtures of a seed first, then batches of four, until it has spent 32 trainings of the large size;
a training costs its active parameters x tokens.

A search sees one seed's trainings, as a study does. Regret is the objective (bits per byte of text
that is never trained on) at the mean of the *other* seeds, above the mixture that is best by it:
what a search learns of a seed's error helps it nothing. That best mixture is partly luck, so that
no search comes to 0: `all of the pool` is the regret of who trains every mixture once.

Ours and RegMix choose among the mixtures of the pool. Optuna and Ax ask for any mixture and are
given the nearest that is left; so is `bayes, nearest`, to tell what that costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import optuna
from scipy.stats import spearmanr

from benchmarks.ask_tell import Ax, Optuna, Tool, drive
from benchmarks.pool_peers import RegMixTop
from benchmarks.trained_pool import OBJECTIVE, SIZES, Trained, read, train_all
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Trial, TrialSpec
from mixopt.offline.pool import Pool
from mixopt.offline.replay import MakesProposer, Plan, replay
from mixopt.search.proposers.base import Proposer
from mixopt.search.proposers.bayes import Bayes
from mixopt.search.proposers.multi_fidelity import MultiFidelity
from mixopt.search.proposers.random import Random
from mixopt.search.proposers.regmix import RegMix
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.noise import seed_scatter
from mixopt.surrogates.reliability import Reliability, reliability

MIXTURES, TRAINED_SEEDS = 150, 3
BUDGETS = (12.0, 16.0, 32.0)  # trainings of the large size; a search has the last
INITIAL, BATCH = 8, 4
CHANCE_SEEDS = 200


@dataclass(frozen=True)
class Found:
    """What a search trained, in order, and what it recommends: candidates of the pool."""

    order: Sequence[int]
    recommended: int


@dataclass(frozen=True)
class Task:
    """The pool as a search sees it, and the truth that it does not see.

    Attributes:
        pool: of one seed's trainings.
        truth: (k,) of each candidate, the objective's mean over the other seeds.
    """

    pool: Pool
    truth: np.ndarray

    @classmethod
    def of(cls, trained: Trained, seed: int) -> Task:
        """The task whose searches see the trainings of `seed`."""
        objective = Objective({OBJECTIVE: 1.0})
        sizes, seeds, mixtures, metrics = trained.values.shape
        values = trained.values[:, seed].reshape(-1, metrics)
        table = TrialTable(
            trained.domains,
            trained.metrics,
            np.tile(trained.weights, (sizes, 1)),
            values,
            np.repeat([float(size.params) for size in trained.sizes], mixtures),
            np.repeat([float(size.tokens) for size in trained.sizes], mixtures),
            np.full(len(values), seed),
        )
        others = [other for other in range(seeds) if other != seed]
        goal = trained.metrics.index(objective.metrics[0])
        truth = trained.values[..., goal][:, others].mean(axis=1).ravel()
        return cls(Pool.of(table, objective, trained.sizes[-1]), truth)

    @cached_property
    def least(self) -> float:
        """The truth of the best mixture at the target."""
        return float(self.truth[self.pool.targets].min())

    def regret(self, candidate: int) -> float:
        """By how much the truth of `candidate` exceeds the least."""
        return float(self.truth[candidate]) - self.least

    def trained(self, order: Sequence[int], budget: float) -> float:
        """Regret of the best by what a search saw of `order` within `budget`; NaN of none."""
        seen = [c for c in self._within(order, budget) if c in set(self.pool.targets.tolist())]
        return self.regret(best(self.pool, seen)) if seen else float("nan")

    def found(self, order: Sequence[int], budget: float) -> bool:
        """Whether `order` holds, within `budget`, the best of the pool as the search sees it."""
        return self.pool.best in self._within(order, budget)

    def _within(self, order: Sequence[int], budget: float) -> list[int]:
        spent = np.cumsum(self.pool.costs[list(order)])
        return [c for c, cost in zip(order, spent, strict=True) if cost <= budget * (1 + 1e-9)]


def best(pool: Pool, candidates: Sequence[int]) -> int:
    """The one with the least objective, by the trainings that a search sees."""
    return min(candidates, key=lambda candidate: pool.values[candidate])


@dataclass(frozen=True)
class Search:
    """A proposer by its name in the table, and how it searches a pool from a seed."""

    name: str
    run: Callable[[Pool, int], Found]
    seeds: int | None = None
    needs: str = ""  # package without which it is skipped


class Nearest(Bayes):
    """`bayes`, which asks for any mixture of the space and is given the nearest of the pool."""

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """See `Proposer.select`."""
        return Proposer.select(self, trials, pool, n)


def replayed(kind: MakesProposer, surrogate: str, plan: Plan, pool: Pool, seed: int) -> Found:
    """A search by one of mixopt's proposers."""

    def unfitted() -> Surrogate:
        return make(surrogate, seed=seed, fidelity=pool.target, objective=pool.objective)

    ended = replay(pool, kind, unfitted, plan, seed)
    recommended = ended.trained if ended.recommended is None else ended.recommended
    if recommended is None:
        raise SystemExit(f"{ended.proposer} trained nothing at the target")
    return Found(ended.order, recommended)


def driven(tool: Callable[[Sequence[str], int], Tool], pool: Pool, seed: int) -> Found:
    """A search by a tool that asks for mixtures, from the same initial design."""
    begun = replayed(Random, "linear", Plan(budget=INITIAL, initial=INITIAL), pool, seed).order
    order = drive(tool(pool.domains, seed), pool, begun, int(BUDGETS[-1]), BATCH)
    return Found(order, best(pool, order))


def searches() -> list[Search]:
    """All that are compared, chance first."""
    target = Plan(BUDGETS[-1], initial=INITIAL, batch=BATCH, every=1000)
    several = dataclasses.replace(target, initial=None)  # a quarter of the budget, or two a domain

    def ours(kind: MakesProposer, surrogate: str, plan: Plan) -> Callable[[Pool, int], Found]:
        return partial(replayed, kind, surrogate, plan)

    def tpe(domains: Sequence[str], seed: int) -> Tool:
        return Optuna(domains, optuna.samplers.TPESampler(seed=seed))

    def gp(domains: Sequence[str], seed: int) -> Tool:
        return Optuna(domains, optuna.samplers.GPSampler(seed=seed))

    def small_first(pool: Pool, seed: int) -> Found:
        cheapest = pool.fidelities[0]
        cost = float(pool.costs[[s.fidelity == cheapest for s in pool.specs]].mean())
        half = dataclasses.replace(target, initial=int(BUDGETS[-1] / 2 / cost), start=cheapest)
        return replayed(RegMixTop, "lightgbm", half, pool, seed)

    return [
        Search("random", ours(Random, "linear", target), CHANCE_SEEDS),
        Search("bayes, auto (default)", ours(Bayes, "auto", target)),
        Search("bayes, effective-data", ours(Bayes, "effective-data", target)),
        Search("bayes, nearest", ours(Nearest, "effective-data", target)),
        Search("multi-fidelity", ours(MultiFidelity, "cokriging", several)),
        Search("RegMix", ours(RegMix, "lightgbm", target)),
        Search("RegMix, small first", small_first),
        Search("Optuna TPE", partial(driven, tpe)),
        Search("Optuna GPSampler", partial(driven, gp)),
        Search("Ax", partial(driven, Ax), needs="ax"),
    ]


@dataclass(frozen=True)
class Row:
    """What the searches of a proposer came to.

    Attributes:
        name: of the proposer.
        seeds: how many searches.
        trained: by budget, regret of the best that was trained: median, 5 % and 95 % quantile over
            searches, mean.
        recommended: the same of what is recommended at the end.
        found: by budget, share of searches that trained the best of the pool as they see it.
        seconds: CPU time of a search.
    """

    name: str
    seeds: int
    trained: dict[float, tuple[float, ...]]
    recommended: tuple[float, ...]
    found: dict[float, float]
    seconds: float


def row(search: Search, tasks: Sequence[Task], seeds: int) -> Row:
    """The row of `search`, whose seeds see the trained seeds in turn."""
    start = time.process_time()
    ends = [(tasks[s % len(tasks)], s) for s in range(search.seeds or seeds)]
    done = [(task, search.run(task.pool, seed)) for task, seed in ends]
    return Row(
        name=search.name,
        seeds=len(done),
        trained={b: spread([t.trained(f.order, b) for t, f in done]) for b in BUDGETS},
        recommended=spread([task.regret(found.recommended) for task, found in done]),
        found={b: float(np.mean([t.found(f.order, b) for t, f in done])) for b in BUDGETS},
        seconds=round((time.process_time() - start) / len(done), 2),
    )


def spread(values: Sequence[float]) -> tuple[float, ...]:
    """Median, 5 % and 95 % quantile, mean; rounded."""
    found = [*np.quantile(values, (0.5, 0.05, 0.95)), np.mean(values)]
    return tuple(round(float(value), 5) for value in found)


def qualities(trained: Trained) -> dict[str, Reliability | None]:
    """How well the objective tells mixtures apart, at each size."""
    goal = trained.metrics.index(f"bpb/{OBJECTIVE}")
    found = {}
    for size, values_SM in zip(trained.sizes, trained.values[..., goal], strict=True):
        runs = [dict(enumerate(own.tolist())) for own in values_SM.T]
        found[size.model] = reliability(runs, seed_scatter(runs))
    return found


def main() -> None:
    options = _arguments()
    folder, mixtures = options.folder, options.mixtures
    if options.command == "train":
        count = train_all(folder, mixtures, TRAINED_SEEDS, partial(print, flush=True), SIZES)
        print(f"{count} cohorts trained")
        return
    trained = read(folder, mixtures, SIZES)
    tasks = [Task.of(trained, seed) for seed in range(trained.values.shape[1])]
    if not options.json:
        _say_quality(trained, tasks)
    known = searches()
    chosen = [s for s in known if s is known[0] or not options.only or s.name in options.only]
    chance: Row | None = None
    for search in chosen:
        if search.needs and find_spec(search.needs) is None:
            print(f"{search.name}: skipped, {search.needs} is not installed", file=sys.stderr)
            continue
        found = row(search, tasks, options.seeds)
        chance = chance or found
        _say(found, chance, options.json)


def _say_quality(trained: Trained, tasks: Sequence[Task]) -> None:
    for name, quality in qualities(trained).items():
        if quality is not None:
            print(
                f"{name}: signal {quality.signal:.4f}, noise {quality.noise.std:.4f}, ratio "
                f"{quality.ratio:.1f} ({quality.low:.1f} to {quality.high:.1f})"
            )
    goal = trained.metrics.index(f"bpb/{OBJECTIVE}")
    small, large = trained.values[0, :, :, goal].mean(0), trained.values[-1, :, :, goal].mean(0)
    print(f"Spearman between sizes, means over seeds: {spearmanr(small, large).statistic:.3f}")
    everything = [task.regret(best(task.pool, task.pool.targets.tolist())) for task in tasks]
    print(
        f"all of the pool: {np.mean(everything):.4f} ({', '.join(f'{r:.4f}' for r in everything)})"
    )
    natural = [task.regret(int(task.pool.targets[0])) for task in tasks]
    print(f"natural mixture: {np.mean(natural):.4f}", flush=True)


def _say(found: Row, chance: Row, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(found)), flush=True)
        return

    def cell(own: tuple[float, ...], other: tuple[float, ...]) -> str:
        median, low, high, mean = own
        return f"{median:.4f} ({low:.4f} to {high:.4f}) {mean:.4f} {mean / other[3]:.2f}x"

    cells = [cell(found.trained[b], chance.trained[b]) for b in BUDGETS]
    cells.append(cell(found.recommended, chance.recommended))
    cells.append(" ".join(f"{share:.2f}" for share in found.found.values()))
    print(f"{found.name} ({found.seeds})", *cells, f"{found.seconds:.1f} s", sep=" | ", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=("train", "replay"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mixtures", type=int, default=MIXTURES)
    parser.add_argument("--seeds", type=int, default=20, help="searches of each; 200 of chance")
    parser.add_argument("--only", nargs="*", default=[], help="names of searches, besides random")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
