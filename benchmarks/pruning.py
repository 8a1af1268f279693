"""What pruning saves, and how often it stops a trial that would have won.

    python -m benchmarks.pruning                              # published learning curves
    python -m benchmarks.pruning --embedded --folder FOLDER   # proxies trained on text of here

Finished runs are replayed as a study would have run them: in an order drawn by chance, the first
`--startup` to their end, then as many more as make a swarm of twice that, then in rounds of four;
each group under the limits that all complete runs before it give (`mixopt.search.pruning`).
Printed for every chance asked for, over `--orders` orders:

    saved   share of all runs' steps that are not trained
    pruned  share of the runs after the first ones that are stopped
    wrong   share of those that would have been better than the best one known
    lost    share of the orders in which the best run of all was stopped
    worse   how much the best run that is left is worse than the best of all, on the average
    inside  share of the stopped runs' metrics in the 90 % interval of what was predicted of them

and, for `--surrogates`, how much the mixture of the whole pool that one recommends is worse than
the best: fitted to all runs (`whole`), to those that were not stopped (`left`), and to these with
what was predicted of the others (`predicted`). Runs in an order by chance are not proposals: those
are better, and fewer of them are stopped.

With `--calibration`, how often the end of a run lies in the 90 % interval that its last evaluation
and eight other runs give (`inside`), and the same by the step law
(`mixopt.surrogates.fidelity.curves`), fitted to the same curves together; and the share
of runs that either calls hopeless.

Shapes: n runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from benchmarks.embedded import corpus_in, drawn_mixtures
from benchmarks.tables import BATCH_TOKENS, mixing_laws
from mixopt.core.counts import parse_tokens
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.recipe import Recipe
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import CurvePoint, Fidelity, TrialSpec
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import train
from mixopt.search.pruning import limits, line
from mixopt.surrogates import make
from mixopt.surrogates.base import learn
from mixopt.surrogates.fidelity.curves import chance_to_beat, curve_table, forecast

END = 30_000  # step at which nearly all published runs stand
PUBLISHED = (("5Mix", "160M"), ("5Mix", "305M"), ("RedPajama", "70M"), ("RedPajama", "160M"))
PUBLISHED += (("RedPajama", "305M"),)
TARGET = "descriptions"  # validation domain that a study of the embedded text searches for
BATCH = 4  # trials of a round
COHORT = 8


@dataclass(frozen=True)
class Run:
    """A finished run: its mixture, and its learning curve up to what it measured."""

    mixture: Mixture
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Replay:
    """One order of runs under pruning.

    Attributes:
        trained: (n,) share of its steps that each run was trained for, by run.
        expected: stopped run → metric → what it would have come to, and how surely.
        wrong: how many were stopped that would have been better than the best one known.
        tried: how many could have been stopped.
    """

    trained: np.ndarray
    expected: dict[int, dict[str, tuple[float, float]]]
    wrong: int
    tried: int

    @property
    def pruned(self) -> np.ndarray:
        """(n,) whether a run was stopped."""
        return self.trained < 1


def main() -> None:
    arguments = _arguments()
    pools = _embedded(arguments) if arguments.embedded else _published()
    for name, runs, objective in pools:
        for row in _rows(runs, objective, arguments):
            result = {"runs": f"{name}, {len(runs)}", **row}
            text = "  ".join(f"{key} {value}" for key, value in result.items())
            print(json.dumps(result) if arguments.json else text, flush=True)


def _rows(
    runs: Sequence[Run], objective: Objective, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    if arguments.calibration:
        for share in (0.25, 0.5, 0.75):
            yield {"from": share, **calibration(runs, objective, share, arguments)}
        return
    ends = np.array([objective.value(run.curve[-1].metrics) for run in runs])
    for chance in (float(text) for text in arguments.chances.split(",")):
        orders = [np.random.default_rng(s).permutation(len(runs)) for s in range(arguments.orders)]
        found = [replay(runs, objective, order, chance, arguments) for order in orders]
        left = [ends[~one.pruned].min() - ends.min() for one in found]
        stopped = sum(int(one.pruned.sum()) for one in found)
        row = {
            "chance": chance,
            "saved": round(1 - float(np.mean([one.trained.mean() for one in found])), 3),
            "pruned": round(stopped / sum(one.tried for one in found), 3),
            "wrong": round(sum(one.wrong for one in found) / max(1, stopped), 4),
            "lost": round(float(np.mean([one.pruned[ends.argmin()] for one in found])), 3),
            "worse": round(float(np.mean(left)), 5),
            "inside": round(_inside(runs, found), 3),
        }
        for name in arguments.surrogates.split(",") if arguments.surrogates else ():
            row |= _regret(name, runs, objective, found, ends)
        yield row


def replay(
    runs: Sequence[Run],
    objective: Objective,
    order: np.ndarray,
    chance: float,
    arguments: argparse.Namespace,
) -> Replay:
    """Run `runs` in this `order` (n,), pruning those that are hopeless."""
    startup = arguments.startup
    bounds = [0, startup, *range(2 * startup, len(runs), BATCH), len(runs)]
    trained, wrong = np.ones(len(runs)), 0
    expected: dict[int, dict[str, tuple[float, float]]] = {}
    for first, last in pairwise(bounds):
        known = [runs[i].curve for i in order[:first] if trained[i] == 1]
        found = limits(known, objective, chance, arguments.warmup)
        for i in order[first:last].tolist() if found is not None else ():
            curve = runs[i].curve
            stop = next((point for point in curve if found.hopeless(point)), None)
            if stop is not None:
                trained[i] = stop.step / curve[-1].step
                expected[i] = found.expected(stop)
                best = min(objective.value(other[-1].metrics) for other in known)
                wrong += objective.value(curve[-1].metrics) < best
    return Replay(trained, expected, wrong, len(runs) - startup)


def _regret(
    name: str, runs: Sequence[Run], objective: Objective, found: Sequence[Replay], ends: np.ndarray
) -> dict[str, float]:
    """How much the mixture with the least predicted mean is worse than the best of all."""
    weights = np.array([run.mixture.weights for run in runs])

    def regret(table: TrialTable) -> float:
        predicted = learn(make(name, seed=0), table).predict(weights)
        return float(ends[int(predicted.compose(objective)[0].argmin())] - ends.min())

    whole = _table(runs, objective)
    result = {"whole": [regret(whole)]}
    result["left"] = [regret(whole.select(~one.pruned)) for one in found]
    result["predicted"] = [regret(_predicted(whole, one)) for one in found]
    return {f"{name} {what}": round(float(np.mean(values)), 5) for what, values in result.items()}


def _predicted(whole: TrialTable, one: Replay) -> TrialTable:
    """`whole` with what stopped runs would have come to in place of what they did."""
    values, noise_std = whole.values.copy(), np.zeros_like(whole.values)
    for run, expected in one.expected.items():
        for metric, (mean, std) in expected.items():
            column = whole.metrics.index(metric)
            values[run, column], noise_std[run, column] = mean, std
    return dataclasses.replace(whole, values=values, noise_std=noise_std)


def _inside(runs: Sequence[Run], found: Sequence[Replay]) -> float:
    """Share of the metrics of stopped runs that lie in the 90 % interval of what was predicted."""
    hits = [
        abs(runs[run].curve[-1].metrics[metric] - mean) < NORMAL_90 * std
        for one in found
        for run, expected in one.expected.items()
        for metric, (mean, std) in expected.items()
    ]
    return float(np.mean(hits)) if hits else float("nan")


def calibration(
    runs: Sequence[Run], objective: Objective, share: float, arguments: argparse.Namespace
) -> dict[str, float]:
    """Coverage of 90 % intervals and share of hopeless runs, by regression and by the step law."""
    steps = sorted(set.intersection(*({p.step for p in run.curve} for run in runs)))
    at = min(steps[:-1], key=lambda step: abs(step - share * steps[-1]))
    values = [{p.step: objective.value(p.metrics) for p in run.curve} for run in runs]
    x, y = (np.array([v[step] for v in values]) for step in (at, steps[-1]))
    tallies = []
    for seed in range(arguments.orders):
        order = np.random.default_rng(seed).permutation(len(runs))
        known, rest = order[: arguments.startup], order[arguments.startup :]
        best = y[known].min()
        fit = line(x[known], y[known])
        assert fit is not None
        mean, widened = np.array([fit.at(float(there)) for there in x[rest]]).T
        std, degrees = widened / fit.widen, len(known) - 2
        tally = [np.abs(mean - y[rest]) < NORMAL_90 * widened]
        tally.append(student.cdf((best - mean) / std, degrees) < 0.05)
        if seed < 4:  # a second each
            law_mean, law_std, chance = _by_law(runs, objective, known, rest, at, best)
            tally += [np.abs(law_mean - y[rest]) < NORMAL_90 * law_std, chance < 0.05]
        tallies.append([float(np.mean(part)) for part in tally])
    slow = [tally[2:] for tally in tallies if len(tally) > 2]
    inside, hopeless = np.mean([tally[:2] for tally in tallies], axis=0)
    law_inside, law_hopeless = np.mean(slow, axis=0)
    return {
        "inside": round(float(inside), 3),
        "hopeless": round(float(hopeless), 3),
        "law inside": round(float(law_inside), 3),
        "law hopeless": round(float(law_hopeless), 3),
    }


def _by_law(
    runs: Sequence[Run],
    objective: Objective,
    known: np.ndarray,
    rest: np.ndarray,
    at: int,
    best: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation and chance to win of `rest`, of which the curves are known up to `at`."""
    whole, begun = [runs[i] for i in known], [runs[i] for i in rest]
    begun = [Run(r.mixture, tuple(p for p in r.curve if p.step <= at)) for r in begun]
    specs = [(TrialSpec(r.mixture, Fidelity("", 1, 1), 0), r.curve) for r in (*whole, *begun)]
    result = forecast(curve_table(specs, objective.metrics), whole[0].curve[-1].tokens)
    rows = np.arange(len(whole), len(specs))
    mean, std = result.compose(objective)
    return mean[rows], std[rows], chance_to_beat(result, objective, best)[rows]


def _table(runs: Sequence[Run], objective: Objective) -> TrialTable:
    return TrialTable(
        domains=runs[0].mixture.domains,
        metrics=objective.metrics,
        weights=np.array([run.mixture.weights for run in runs]),
        values=np.array([[run.curve[-1].metrics[m] for m in objective.metrics] for run in runs]),
        params=np.ones(len(runs)),
        tokens=np.ones(len(runs)),
        seeds=np.zeros(len(runs), dtype=int),
    )


def _published() -> Iterator[tuple[str, list[Run], Objective]]:
    """Runs of Data Mixing Laws (2403.16952) that are known up to step 30,000."""
    for family, size in PUBLISHED:
        table = mixing_laws(family, size)
        table = table.select(
            (table.tokens <= END * BATCH_TOKENS) & np.isfinite(table.values).all(1)
        )
        runs = []
        for number in np.unique(table.runs):
            rows = np.flatnonzero(table.runs == number)
            rows = rows[np.argsort(table.tokens[rows])]
            if table.tokens[rows[-1]] == END * BATCH_TOKENS:
                points = zip(table.tokens[rows].tolist(), table.values[rows].tolist(), strict=True)
                curve = [
                    CurvePoint(
                        round(t / BATCH_TOKENS), round(t), dict(zip(table.metrics, v, strict=True))
                    )
                    for t, v in points
                ]
                mixture = Mixture.from_array(table.domains, table.weights[rows[0]])
                runs.append(Run(mixture, tuple(curve)))
        yield f"{family} {size}", runs, Objective(dict.fromkeys(table.metrics, 1.0))


def _embedded(arguments: argparse.Namespace) -> Iterator[tuple[str, list[Run], Objective]]:
    """Proxies of a study's first swarm on text from here; trained once, then kept in the folder."""
    folder = Path(arguments.folder or tempfile.mkdtemp())
    tokens = parse_tokens(arguments.tokens)
    kept = folder / f"runs-{arguments.trials}-{tokens}-{arguments.evaluations}.json"
    runs = _read(kept)
    if len(runs) < arguments.trials:
        torch.set_num_threads(1)
        corpus = corpus_in(folder / "corpus")
        # evaluated as the demo's proxies are, however short the training
        sets = len(corpus.validation_domains)
        recipe = Recipe(evaluations=arguments.evaluations, checkpoint_seconds=float("inf"))
        recipe = dataclasses.replace(recipe.affordable(300_000, sets, 1), curve_tokens=1024)
        mixtures = drawn_mixtures(corpus, arguments.trials)
        for first in range(len(runs), arguments.trials, COHORT):
            part = tuple(mixtures[first : first + COHORT])
            job = Job(ModelConfig(), recipe, str(corpus.path), part, (0,) * len(part), tokens)
            job = dataclasses.replace(job, weighed=(TARGET,))
            with tempfile.TemporaryDirectory() as scratch:
                outcomes = train(job, Path(scratch), threads=1, device="cpu")
            for mixture, outcome in zip(part, outcomes, strict=True):
                if outcome.result is None:
                    raise SystemExit(f"a proxy diverged: {outcome.message}")
                runs.append(Run(mixture, tuple(outcome.result.curve)))
            _write(kept, runs)
    yield f"embedded {arguments.tokens}", runs, Objective({TARGET: 1.0})


def _read(path: Path) -> list[Run]:
    if not path.exists():
        return []
    return [
        Run(Mixture.exact(row["mixture"]), tuple(CurvePoint(**point) for point in row["curve"]))
        for row in json.loads(path.read_text())
    ]


def _write(path: Path, runs: Sequence[Run]) -> None:
    rows = [
        {"mixture": r.mixture.as_dict(), "curve": [dataclasses.asdict(p) for p in r.curve]}
        for r in runs
    ]
    path.write_text(json.dumps(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedded", action="store_true", help="train proxies, or take those kept")
    parser.add_argument("--folder", help="where corpus and runs of --embedded are kept")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--tokens", default="150k", help="of each proxy")
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--chances", default="0.02,0.05,0.1,0.2")
    parser.add_argument("--startup", type=int, default=8)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--surrogates", default="", help="registry names, comma between them")
    parser.add_argument("--calibration", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
