"""Proposers under guardrails, replayed on RegMix's 512 runs of 1M parameters: ours, BoTorch's.

    python -m benchmarks.guarded --seeds 5

The objective is the loss on Pile-CC; the baseline is the run nearest (Hellinger) to the mean of all
mixtures, and a task forbids two other losses to be more than a hundredth worse than there. A
search trains the baseline and 7 mixtures at random (the same for all), then batches of four.
Regret, in nats, is the loss on Pile-CC of the best trained mixture that keeps to the guardrails,
above the best of all 512 that does. Every mixture was run once: the truth is what was measured.

BoTorch's is `qLogNoisyExpectedImprovement` with `constraints=`, on a `SingleTaskGP` a metric, over
the same mixtures. `bayes` takes the guardrails as a study does (`mixopt.search.guards`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.objective import GenericMCObjective
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.models.transforms.outcome import Standardize
from botorch.optim.optimize import optimize_acqf_discrete
from gpytorch.mlls import ExactMarginalLogLikelihood

from benchmarks.tables import regmix
from mixopt.core.guardrails import Guardrail
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Trial, TrialSpec
from mixopt.offline.pool import Pool
from mixopt.search.guards import GuardedSpace, Guards
from mixopt.search.proposers.base import hellinger
from mixopt.search.proposers.bayes import Bayes
from mixopt.surrogates import make
from mixopt.surrogates._torch import reproducible

GOAL = "loss/pile_cc"
GUARDED = (
    ("arxiv", "github"),
    ("freelaw", "wikipedia_en"),
    ("dm_mathematics", "stackexchange"),
    ("uspto_backgrounds", "hackernews"),
)
WORSE_BY = 0.01  # of the baseline's loss
INITIAL, BATCH, BUDGETS = 8, 4, (12, 16, 24)


@dataclass(frozen=True)
class Task:
    """A pool with a guardrail on each of some metrics."""

    pool: Pool
    guardrails: tuple[Guardrail, ...]

    @cached_property
    def baseline(self) -> int:
        """The candidate nearest to the mean of all."""
        weights = np.array([spec.mixture.weights for spec in self.pool.specs])
        return int(hellinger(weights, weights.mean(axis=0)[None]).argmin())

    @cached_property
    def limits(self) -> list[float]:
        """The greatest loss that each guardrail allows."""
        base = self.pool.metrics[self.baseline]
        return [base[g.metric] + g.allowance(base[g.metric]) for g in self.guardrails]

    @cached_property
    def holds(self) -> np.ndarray:
        """(k,) whether a candidate keeps to all guardrails."""
        base = self.pool.metrics[self.baseline]
        kept = [
            all(g.excess(own[g.metric], base[g.metric]) <= 0 for g in self.guardrails)
            for own in self.pool.metrics
        ]
        return np.array(kept)

    def regret(self, order: Sequence[int]) -> float:
        """Of the best of `order` that keeps to the guardrails; the baseline always does."""
        kept = [c for c in order if self.holds[c]]
        return float(self.pool.values[kept].min() - self.pool.values[self.holds].min())


def tasks() -> list[Task]:
    """One a pair of guarded losses."""
    table = regmix("train", "1m")
    pool = Pool.of(table, Objective({GOAL: 1.0}, prefix=""))
    return [
        Task(pool, tuple(Guardrail(f"loss/{name}", WORSE_BY, relative=True) for name in pair))
        for pair in GUARDED
    ]


def drawn(
    task: Task, trials: Sequence[Trial], left: Sequence[TrialSpec], seed: int
) -> list[TrialSpec]:
    """A batch at random."""
    rng = np.random.default_rng([seed, len(trials)])
    return [left[i] for i in rng.choice(len(left), BATCH, replace=False)]


def ours(
    task: Task,
    trials: Sequence[Trial],
    left: Sequence[TrialSpec],
    seed: int,
    surrogate: str,
    guarded: bool = True,
) -> list[TrialSpec]:
    """A batch by `bayes`, whose space has the guardrails as the trials so far show them."""
    pool, metrics = task.pool, tuple(g.metric for g in task.guardrails)
    space = pool.space
    if guarded:
        fitted = make(
            surrogate,
            seed=seed,
            fidelity=pool.target,
            objective=Objective(dict.fromkeys(metrics, 1.0), prefix=""),
        ).fit(TrialTable.of(trials, metrics))
        seen = [pool.objective.value(t.metrics) for t in trials]
        baseline = pool.specs[task.baseline].mixture
        guards = Guards(task.guardrails, fitted, baseline, gain=max(seen) - min(seen))
        space = GuardedSpace.of(space, guards)
    proposer = Bayes(
        space=space,
        objective=pool.objective,
        fidelity=pool.target,
        surrogate=lambda: make(
            surrogate, seed=seed, fidelity=pool.target, objective=pool.objective
        ),
        seed=seed,
    )
    return proposer.select(trials, left, BATCH)


def botorch(
    task: Task, trials: Sequence[Trial], left: Sequence[TrialSpec], seed: int
) -> list[TrialSpec]:
    """A batch by BoTorch's qLogNEI under outcome constraints."""
    metrics = [GOAL, *(g.metric for g in task.guardrails)]
    X = torch.tensor([t.spec.mixture.weights for t in trials], dtype=torch.double)
    Y = torch.tensor([[t.metrics[m] for m in metrics] for t in trials], dtype=torch.double)
    choices = torch.tensor([spec.mixture.weights for spec in left], dtype=torch.double)
    with reproducible(seed):
        models = [
            SingleTaskGP(X, Y[:, [i]], outcome_transform=Standardize(1))
            for i in range(len(metrics))
        ]
        for model in models:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedImprovement(
            ModelListGP(*models),
            X_baseline=X,
            objective=GenericMCObjective(_goal),
            constraints=[
                partial(_over, column=i, limit=limit) for i, limit in enumerate(task.limits, 1)
            ],
        )
        chosen, _ = optimize_acqf_discrete(acquisition, q=BATCH, choices=choices)
    return [left[int((choices - row).abs().sum(dim=1).argmin())] for row in chosen]


def _goal(samples: torch.Tensor, X: torch.Tensor | None = None) -> torch.Tensor:
    """What BoTorch is to maximise."""
    return -samples[..., 0]


def _over(samples: torch.Tensor, column: int, limit: float) -> torch.Tensor:
    """What BoTorch wants of a constraint: at most 0 where it holds."""
    return samples[..., column] - limit


SEARCHES: dict[str, Callable[..., list[TrialSpec]]] = {
    "random": drawn,
    "bayes, auto (default)": partial(ours, surrogate="auto"),
    "bayes, effective-data": partial(ours, surrogate="effective-data"),
    "bayes, gp": partial(ours, surrogate="gp"),
    "bayes, gp, told of no guardrail": partial(ours, surrogate="gp", guarded=False),
    "BoTorch qLogNEI with constraints": botorch,
}


def search(task: Task, select: Callable[..., list[TrialSpec]], seed: int) -> list[int]:
    """The candidates that a search trains, in order."""
    pool = task.pool
    others = np.delete(np.arange(len(pool.specs)), task.baseline)
    begun = np.random.default_rng(seed).permutation(others)[: INITIAL - 1]
    order = [task.baseline, *begun.tolist()]
    index = {spec: k for k, spec in enumerate(pool.specs)}
    while len(order) < BUDGETS[-1]:
        trials = [pool.trial(number, c) for number, c in enumerate(order)]
        left = [spec for k, spec in enumerate(pool.specs) if k not in set(order)]
        order += [index[spec] for spec in select(task, trials, left, seed)]
    return order


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="searches of each task")
    parser.add_argument("--only", nargs="*", default=[], choices=list(SEARCHES))
    options = parser.parse_args()
    known = tasks()
    for task in known:
        best, base = task.pool.values[task.holds].min(), task.pool.values[task.baseline]
        print(
            f"{' and '.join(g.metric for g in task.guardrails)}: {task.holds.sum()} of "
            f"{len(task.holds)} mixtures keep to it; the best of them is {base - best:.3f} below "
            f"the baseline, the best of all {base - task.pool.values.min():.3f}"
        )
    for name in options.only or SEARCHES:
        start = time.process_time()
        runs = [
            (task, search(task, SEARCHES[name], seed))
            for task in known
            for seed in range(options.seeds)
        ]
        seconds = (time.process_time() - start) / len(runs)
        cells = [_cell([task.regret(order[:budget]) for task, order in runs]) for budget in BUDGETS]
        kept = np.mean([task.holds[order[INITIAL:]].mean() for task, order in runs])
        found = np.mean([task.regret(order) == 0 for task, order in runs])
        print(
            name, *cells, f"{kept:.2f}", f"{found:.2f}", f"{seconds:.1f} s", sep=" | ", flush=True
        )


def _cell(regrets: Sequence[float]) -> str:
    error = np.std(regrets, ddof=1) / np.sqrt(len(regrets))
    return f"{np.mean(regrets):.4f} ({error:.4f})"


if __name__ == "__main__":
    main()
