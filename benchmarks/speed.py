"""Time to fit the default surrogate and propose 16 constrained mixtures, on one thread.

    python benchmarks/speed.py                   # RegMix's table: 64 and 512 runs, against BoTorch
    python benchmarks/speed.py --large           # 4,096 runs x 100 domains x 20 metrics, and memory
    python benchmarks/speed.py --repeats 3 --json

RegMix's table has 17 domains and 13 metrics. What is timed is what a user of `mixopt fit` and
`mixopt propose` waits for: surrogates compared on held-out runs, the best one fitted to all, and 16
mixtures proposed by Bayesian optimization under bounds and a linear constraint. The peer, in the
same run, is 13 fits of BoTorch's `SingleTaskGP` on √w to 512 runs, with nothing proposed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.tables import regmix
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.search.proposers import make as make_proposer
from mixopt.surrogates import make
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.auto import Auto

BATCH = 16


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []

    def say(**row: Any) -> None:
        rows.append(row)
        text = "  ".join(f"{key} {value}" for key, value in row.items())
        print(json.dumps(row) if arguments.json else text, flush=True)

    if arguments.large:
        start = time.perf_counter()
        chosen = _work(_made(4096, 100, 20))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        say(
            what="4096 x 100 x 20",
            surrogate=chosen,
            seconds=round(time.perf_counter() - start, 1),
            peak_gib=round(peak, 2),
        )
        return
    table = regmix("train", "1m")
    order = np.random.default_rng(0).permutation(len(table))
    ours: list[float] = []
    for _ in range(arguments.repeats):
        spent = []
        for n in (64, 512):
            start = time.perf_counter()
            chosen = _work(table.select(order[:n]))
            spent.append(time.perf_counter() - start)
            say(what=f"{n} x 17 x 13", surrogate=chosen, seconds=round(spent[-1], 2))
        ours.append(sum(spent))
    peer = _botorch(table)
    say(what="13 BoTorch fits at 512", seconds=round(peer, 1))
    say(
        ratio=round(statistics.median(ours) / peer, 4), one_in=round(peer / statistics.median(ours))
    )


def _work(table: TrialTable) -> str:
    """Fit the default and propose; returns the name of the chosen surrogate."""
    objective = Objective(dict.fromkeys(table.metrics, 1.0), prefix="")
    fitted = Auto(objective=objective).fit(table)
    if fitted.chosen is None:
        raise RuntimeError("a fitted Auto has chosen")
    name = fitted.chosen.name
    domains = table.domains
    half = domains[: len(domains) // 2]
    space = MixtureSpace(
        domains,
        Mixture.from_array(domains, table.weights.mean(axis=0)),
        lower={domains[0]: 0.02},
        upper=dict.fromkeys(domains, 0.4),
        linear=(LinearConstraint(dict.fromkeys(half, 1.0), 0.7),),
    )
    fidelity = table.fidelities[-1]
    proposer = make_proposer(
        "bayes",
        space=space,
        objective=objective,
        fidelity=fidelity,
        surrogate=partial(make, name, fidelity=fidelity, objective=objective),
    )
    specs = proposer.propose(_trials(table, fidelity), BATCH)
    if len(specs) != BATCH or not all(space.contains(spec.mixture) for spec in specs):
        raise RuntimeError("a proposal breaks a constraint")
    return name


def _trials(table: TrialTable, fidelity: Fidelity) -> list[Trial]:
    return [
        Trial(
            i,
            TrialSpec(Mixture.from_array(table.domains, weights), fidelity, seed=0),
            State.COMPLETE,
            TrialResult(dict(zip(table.metrics, values.tolist(), strict=True)), (), Cost()),
        )
        for i, (weights, values) in enumerate(zip(table.weights, table.values, strict=True))
    ]


def _botorch(table: TrialTable) -> float:
    """Seconds of 13 fits."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    start = time.perf_counter()
    inputs = torch.from_numpy(np.sqrt(table.weights))
    with reproducible(0):
        for column in table.values.T:
            model = SingleTaskGP(inputs, torch.from_numpy(column.copy())[:, None])
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return time.perf_counter() - start


def _made(n: int, m: int, q: int) -> TrialTable:
    """Runs over `m` domains whose `q` metrics fall with the logarithm of what helps them."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(m, 0.5), n)
    helps = np.exp(rng.normal(-4, 2, (m, q)))
    values = 3 - 0.3 * np.log(0.02 + weights**0.6 @ helps) + 0.01 * rng.normal(size=(n, q))
    return TrialTable(
        tuple(f"domain{j}" for j in range(m)),
        tuple(f"bpb/metric{i}" for i in range(q)),
        weights,
        values,
        np.full(n, 1e6),
        np.full(n, 1e9),
        np.zeros(n, dtype=int),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="the large made table alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="an object per line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
