"""`mixopt replay`: what each proposer would have found on finished runs, by cost.

mixopt replay --ratios ratios.csv --metrics metrics.csv --proposer random,bayes --budget 40
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixopt import surrogates
from mixopt.core.errors import RunsError
from mixopt.core.registry import resolve
from mixopt.offline.fidelity_words import target_fidelity
from mixopt.offline.pool import Pool
from mixopt.offline.replay import Plan, Replay, replay
from mixopt.offline.replay_summary import summary
from mixopt.offline.runs import Runs, read_runs
from mixopt.pipelines.offline.outputs import FOLDER, writable
from mixopt.pipelines.offline.read_objective import read_objective
from mixopt.pipelines.offline.replay_report import print_replays, report_text, write_replays
from mixopt.pipelines.offline.replayed import RUNS, Replayed
from mixopt.pipelines.views.console import make_console, make_error_console
from mixopt.search import proposers
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates.base import Surrogate


@dataclass(frozen=True)
class Search:
    """One replay, as it is sent to a process."""

    pool: Pool
    proposer: str
    surrogate: str
    plan: Plan
    seed: int

    def run(self) -> Replay:
        """The finished search; the same in any process."""
        pool, seed = self.pool, self.seed
        kind = resolve("proposer", self.proposer, proposers.KNOWN, Proposer)  # type: ignore[type-abstract]
        make = partial(
            surrogates.make,
            self.surrogate,
            seed=seed,
            fidelity=pool.target,
            objective=pool.objective,
        )
        done = replay(pool, kind, make, self.plan, seed)
        return dataclasses.replace(done, proposer=self.proposer)


def show_replay(
    ratios: Path,
    metrics: Path,
    names: str,
    plan: Plan,
    seeds: int,
    *,
    objective: Sequence[str] = (),
    surrogate: str | None = None,
    params: str | None = None,
    tokens: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    out: Path | None = None,
    as_json: bool = False,
) -> None:
    """Replay every proposer with every seed; print a table, or JSON, and fill `out`.

    Args:
        ratios: mixtures of the finished runs.
        metrics: metrics of the runs; the same path where one file holds both.
        names: registry names of proposers, or `package.module:Name`, separated by commas.
        plan: budget and course of every search.
        seeds: searches per proposer.
        objective: `metric=weight` each; the mean of all reliable metrics if there is none.
        surrogate: registry name; see `default_surrogate`.
        params: model size of the target fidelity, such as `60M`; None for that of the most
            expensive runs (parameters times tokens).
        tokens: its training tokens; None for the most of that size.
        seed: the first one.
        jobs: processes.
        out: folder for `replay.json`, `curves.csv` and `replay.html`.
        as_json: print one JSON object instead of the table.
    """
    if seeds < 1 or jobs < 1:
        number, what = (seeds, "seeds") if seeds < 1 else (jobs, "jobs")
        raise RunsError(
            f"{number} {what} were asked for",
            where=f"--{what}",
            hint="Ask for at least 1",
        )
    if out is not None:
        writable(out, FOLDER)
    kinds = [name.strip() for name in names.split(",") if name.strip()]
    if not kinds:
        raise RunsError(
            "no proposer is named",
            where="--proposer",
            hint=f"Choose from {', '.join(sorted(proposers.KNOWN))}",
        )
    for name in kinds:  # first, so that an unknown name is an error before files are read
        resolve("proposer", name, proposers.KNOWN, Proposer)  # type: ignore[type-abstract]
    runs = read_runs(ratios, metrics)
    pool, notes = _pool(runs, objective, params, tokens)
    name = surrogate or default_surrogate(len(pool.fidelities) > 1)
    resolve("surrogate", name, surrogates.KNOWN, Surrogate)  # type: ignore[type-abstract]
    searches = [
        Search(pool, kind, name, plan, number)
        for kind in dict.fromkeys(kinds)
        for number in range(seed, seed + seeds)
    ]
    found: dict[str, list[Replay]] = {search.proposer: [] for search in searches}
    for done in _run(searches, jobs):
        found[done.proposer].append(done)
    everything = Replayed(pool, plan, name, _cost_unit(pool), (*notes, *_remarks(found)), found)
    written = [] if out is None else write_replays(out, everything)
    if as_json:
        print(report_text(everything))
        return
    print_replays(everything, make_console())
    for path in written:
        print(path)


def default_surrogate(several: bool) -> str:
    """The default surrogate of a replay, for runs of `several` fidelities or of one.

    `auto` would fit each of its choices several times at every step. From 16 RegMix runs on, a step
    of `effective-data` takes no longer than one of `gp` (about a second).
    """
    return "cokriging" if several else "effective-data"


def _pool(
    runs: Runs, objective: Sequence[str], params: str | None, tokens: str | None
) -> tuple[Pool, list[str]]:
    target, _ = target_fidelity(runs.table, params, tokens)
    asked, notes = read_objective(objective, runs, target)
    pool = Pool.of(runs.table, asked, target, runs.cost, runs.names)
    return pool, [*runs.notes_with(notes), *(f"{note}." for note in pool.notes)]


def _run(searches: Sequence[Search], jobs: int) -> Iterator[Replay]:
    """The replays in the order of `searches`, with a bar on a terminal's stderr."""
    console = make_error_console()
    bar = Progress(
        TextColumn("replaying"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=len(searches))
        if jobs == 1:
            for search in searches:
                yield search.run()
                bar.advance(task)
            return
        # spawned, so that no process inherits threads or locked locks of torch
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(searches)), context) as workers:
            tasks = [workers.submit(search.run) for search in searches]
            try:
                for done in as_completed(tasks):
                    done.result()
                    bar.advance(task)
            except BaseException:  # also Ctrl-C: do not start the waiting searches
                workers.shutdown(cancel_futures=True)
                raise
            yield from (done.result() for done in tasks)


def _remarks(found: dict[str, list[Replay]]) -> list[str]:
    notes = []
    for name, replays in found.items():
        ended = summary(replays)
        if ended.emptied:
            notes.append(
                f"{name}: {ended.emptied:.0%} of the searches trained every run at the target "
                f"before the budget was spent (mean cost {ended.cost:.4g})."
            )
        if ended.drawn:
            notes.append(
                f"{name}: {ended.drawn:.3g} target runs per search were drawn at random, before "
                "the surrogate could be fitted."
            )
    return notes


def _cost_unit(pool: Pool) -> str:
    if pool.priced:
        return "the files' cost column"
    if len(pool.fidelities) == 1:
        return RUNS
    return "runs at the target, by parameters x tokens"
