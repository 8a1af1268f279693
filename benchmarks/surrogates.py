"""How well surrogates of small runs rank large ones: RegMix's and ADMIRE's tables.

    python benchmarks/surrogates.py                        # all of it: about half an hour, one core
    python benchmarks/surrogates.py --parts regmix --sizes 24,32,64 --surrogates effective-data,gp
    python benchmarks/surrogates.py --parts slopes,fewest,admire --json

Parts:
    regmix   fit N of the 512 runs at 1M; Spearman on the 256 runs at 60M, of the mean of 13 losses
             and of Pile-CC's; and the share of the 256 test losses at 1M inside the 90 % interval
    slopes   the same with 8 random runs at 60M, which are not scored (`cokriging`)
    fewest   the fewest runs at 1M from which the first surrogate equals RegMix's LightGBM on 256
    admire   fit N of the 256 runs of Qwen2.5 0.5B; Spearman of the mean of 17 scores on the unseen
             ones, and on the 128 runs of 3B

Subset k of N runs is the first N of `np.random.default_rng(k).permutation(512)`; medians over
subsets. Peers, fitted in the same run: `peer-regmix` (LightGBM as RegMix's notebook has it, but
stopped on a tenth of the training runs, never on test data), `peer-botorch` (SingleTaskGP on raw
weights, metric by metric), `mixing-law` (the exponential law, which is olmix's log-linear one).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightgbm
import numpy as np
import torch

from benchmarks.tables import admire, regmix, stacked
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.surrogates import make
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.scoring import spearman

Row = dict[str, Any]
Predicted = tuple[np.ndarray, np.ndarray | None]  # means (n, q), and deviations of a run
Fitted = Callable[[np.ndarray], Predicted]
CC = "loss/pile_cc"


def main() -> None:
    arguments = _arguments()
    parts = arguments.parts.split(",")
    names = arguments.surrogates.split(",")
    sizes = [int(n) for n in arguments.sizes.split(",")]
    for part in parts:
        for row in PARTS[part](names, sizes, arguments.subsets):
            print(json.dumps(row) if arguments.json else _line(row), flush=True)


def on_regmix(names: Sequence[str], sizes: Sequence[int], subsets: int) -> Iterator[Row]:
    train, small, large = regmix("train", "1m"), regmix("test", "1m"), regmix("test", "60m")
    mean = Objective(dict.fromkeys(train.metrics, 1.0))
    truth = mean.of_table(large)
    cc = train.metrics.index(CC)
    yield {
        "part": "regmix",
        "surrogate": "ceiling: the true loss at 1M",
        "spearman_mean": spearman(mean.of_table(small), truth),
        "spearman_pile_cc": spearman(small.values[:, cc], large.values[:, cc]),
    }
    for n in sizes:
        for name in names:
            found = []
            for k in range(1 if name == "peer-botorch" and n > 128 else subsets):
                start = time.process_time()
                fitted = _fit(name, _subset(train, n, k))
                seconds = time.process_time() - start
                means, deviations = fitted(large.weights)
                inside = np.nan
                if deviations is not None:
                    at_small, spread = fitted(small.weights)
                    inside = float((np.abs(at_small - small.values) < NORMAL_90 * spread).mean())
                found.append(
                    (
                        spearman(means.mean(axis=1), truth),
                        spearman(means[:, cc], large.values[:, cc]),
                        inside,
                        seconds,
                    )
                )
            keys = ("spearman_mean", "spearman_pile_cc", "inside_90", "cpu_seconds")
            yield {"part": "regmix", "runs": n, "surrogate": name, **_medians(keys, found)}


def with_slopes(names: Sequence[str], sizes: Sequence[int], subsets: int) -> Iterator[Row]:
    train, large = regmix("train", "1m"), regmix("test", "60m")
    cc = train.metrics.index(CC)
    target = large.fidelities[0]
    for n in (32, 64, 512):
        for name in ("cokriging", "auto"):
            found = []
            for k in range(subsets):
                order = np.random.default_rng(1000 + k).permutation(len(large))
                few, rest = large.select(order[:8]), large.select(order[8:])
                both = stacked(_subset(train, n, k), few)
                predicted = make(name, fidelity=target).fit(both).predict(rest.weights, target)
                run = np.hypot(predicted.std, np.nan_to_num(predicted.noise))
                found.append(
                    (
                        spearman(predicted.mean.mean(axis=1), rest.values.mean(axis=1)),
                        spearman(predicted.mean[:, cc], rest.values[:, cc]),
                        float((np.abs(predicted.mean - rest.values) < NORMAL_90 * run).mean()),
                    )
                )
            keys = ("spearman_mean", "spearman_pile_cc", "inside_90")
            yield {"part": "slopes", "runs": n, "surrogate": name, **_medians(keys, found)}


def fewest(names: Sequence[str], sizes: Sequence[int], subsets: int) -> Iterator[Row]:
    train, large = regmix("train", "1m"), regmix("test", "60m")
    truth = large.values.mean(axis=1)

    def rank(name: str, n: int) -> float:
        return statistics.median(
            spearman(_fit(name, _subset(train, n, k))(large.weights)[0].mean(axis=1), truth)
            for k in range(subsets)
        )

    goal = rank("peer-regmix", 256)
    for n in (24, 32, 40, 48, 56, 64, 80, 96, 128):
        reached = rank(names[0], n)
        row = {"part": "fewest", "runs": n, "surrogate": names[0], "spearman_mean": reached}
        yield {**row, "lightgbm_on_256": goal}
        if reached >= goal:
            return


def on_admire(names: Sequence[str], sizes: Sequence[int], subsets: int) -> Iterator[Row]:
    small, large = admire("0.5B"), admire("3B")
    for n in (32, 64, 128):
        for name in (*(k for k in names if not k.startswith("peer-botorch")), "linear"):
            found = []
            for k in range(subsets):
                order = np.random.default_rng(k).permutation(len(small))
                learned, rest = small.select(order[:n]), small.select(order[n:])
                fitted = _fit(name, learned)
                found.append(
                    (
                        spearman(fitted(rest.weights)[0].mean(axis=1), rest.values.mean(axis=1)),
                        spearman(fitted(large.weights)[0].mean(axis=1), large.values.mean(axis=1)),
                    )
                )
            keys = ("spearman_unseen", "spearman_3b")
            yield {"part": "admire", "runs": n, "surrogate": name, **_medians(keys, found)}


def _fit(name: str, table: TrialTable) -> Fitted:
    if name == "peer-regmix":
        return _regmix_peer(table)
    if name == "peer-botorch":
        return _botorch_peer(table)
    fitted = make(name).fit(table)

    def predict(weights: np.ndarray) -> Predicted:
        prediction = fitted.predict(weights)
        return prediction.mean, np.hypot(prediction.std, np.nan_to_num(prediction.noise))

    return predict


def _regmix_peer(table: TrialTable) -> Fitted:
    """2407.01492's regression: its parameters, 20 trials a leaf included."""
    settings = {"objective": "regression", "metric": "l2", "learning_rate": 0.01, "seed": 42}
    settings |= {"num_threads": 1, "verbosity": -1}
    held = np.random.default_rng(0).permutation(len(table)) < max(2, len(table) // 10)
    boosters = []
    for column in table.values.T:
        data = lightgbm.Dataset(table.weights[~held], column[~held])
        watched = lightgbm.Dataset(table.weights[held], column[held], reference=data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boosters.append(
                lightgbm.train(
                    settings,
                    data,
                    1000,
                    valid_sets=[watched],
                    callbacks=[lightgbm.early_stopping(3, verbose=False)],
                )
            )
    return lambda weights: (np.stack([b.predict(weights) for b in boosters], axis=1), None)


def _botorch_peer(table: TrialTable) -> Fitted:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    models = []
    inputs = torch.from_numpy(table.weights)
    with reproducible(0):
        for column in table.values.T:
            model = SingleTaskGP(inputs, torch.from_numpy(column.copy())[:, None])
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            models.append(model)

    def predict(weights: np.ndarray) -> Predicted:
        with torch.no_grad(), reproducible(0):
            posteriors = [m.posterior(torch.from_numpy(weights), True) for m in models]
            mean = torch.cat([p.mean for p in posteriors], dim=1).numpy()
            return mean, torch.cat([p.variance for p in posteriors], dim=1).sqrt().numpy()

    return predict


def _subset(table: TrialTable, n: int, k: int) -> TrialTable:
    return table.select(np.random.default_rng(k).permutation(len(table))[:n])


def _medians(keys: Sequence[str], found: Sequence[Sequence[float]]) -> Row:
    middle = np.median(np.array(found), axis=0)
    return {key: round(float(value), 4) for key, value in zip(keys, middle, strict=True)}


def _line(row: Row) -> str:
    return "  ".join(f"{key} {value}" for key, value in row.items())


PARTS = {"regmix": on_regmix, "slopes": with_slopes, "fewest": fewest, "admire": on_admire}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument(
        "--surrogates",
        default="effective-data,gp,linear,lightgbm,mixing-law,peer-regmix,peer-botorch",
    )
    parser.add_argument("--sizes", default="24,32,64,128,512", help="runs at 1M")
    parser.add_argument("--subsets", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="an object per line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
