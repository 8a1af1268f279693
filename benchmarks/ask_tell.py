"""Optimizers of others that ask for a mixture and are told its value: Optuna's samplers, Ax.

They run as themselves, with their own defaults, and call a trainer by mixopt's contract: a function
of a job that returns a result (docs/trainers.md). This one looks finished trainings up.

Shapes: m domains.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from mixopt.core.mixture import Mixture
from mixopt.core.trials import TrialSpec
from mixopt.offline.pool import Pool
from mixopt.search.proposers.base import hellinger
from mixopt.trainers.job import TrainingJob, TrainingResult
from mixopt.trainers.result import check


class Tool(Protocol):
    """An optimizer of mixtures; lower values are better."""

    def tell(self, weights: np.ndarray, value: float) -> None:
        """The value of the mixture `weights` (m,)."""

    def ask(self, n: int) -> list[np.ndarray]:
        """The next `n` mixtures (m,)."""


class LookUp:
    """A trainer that has trained the mixtures of a pool before."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.candidates = {(s.mixture.key, s.fidelity): k for k, s in enumerate(pool.specs)}

    def __call__(self, job: TrainingJob, report: Callable[..., None]) -> TrainingResult:
        """The result of the job.

        Raises:
            KeyError: the pool has no such training.
        """
        candidate = self.candidates[Mixture.exact(dict(job.mixture)).key, job.fidelity]
        return TrainingResult(self.pool.metrics[candidate], job.mixture, job.tokens, job.seed)


def drive(tool: Tool, pool: Pool, begun: Sequence[int], runs: int, batch: int) -> list[int]:
    """The candidates at the target that `tool` trains, in order; `begun` are trained first.

    A mixture that it asks for is replaced by the nearest (Hellinger) one of the pool that is not
    trained yet, and it is told where that lies.

    Args:
        tool: the optimizer.
        pool: of finished trainings.
        begun: the initial design.
        runs: trainings in all.
        batch: mixtures asked for at once.
    """
    trainer = LookUp(pool)
    order: list[int] = []

    def train(candidate: int) -> None:
        spec = pool.specs[candidate]
        tool.tell(spec.mixture.array, _trained(trainer, spec, pool, str(len(order))))
        order.append(candidate)

    for candidate in begun:
        train(candidate)
    while len(order) < runs:
        left = [c for c in pool.targets.tolist() if c not in order]
        chosen = []
        for asked in tool.ask(min(batch, runs - len(order))):
            weights = np.array([pool.specs[c].mixture.weights for c in left])
            chosen.append(left.pop(int(hellinger(weights, asked[None]).argmin())))
        for candidate in chosen:
            train(candidate)
    return order


def _trained(trainer: LookUp, spec: TrialSpec, pool: Pool, trial: str) -> float:
    """The objective of a training by `trainer`, whose result is held against the job."""
    job = TrainingJob(
        study="pool",
        trial=trial,
        mixture=spec.mixture.as_dict(),
        tokens=spec.fidelity.tokens,
        seed=spec.seed,
        fidelity=spec.fidelity,
        folder="/nowhere",  # nothing is written
        metrics=pool.objective.metrics,
    )
    found = check(trainer(job, job.report).to_json(), job)
    return pool.objective.value(found.metrics)


class Optuna:
    """A sampler of Optuna on the square roots of the weights, as `proposer: optuna` has it.

    A point x of the box stands for the mixture x² / sum(x²).
    """

    def __init__(self, domains: Sequence[str], sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.box: dict[str, BaseDistribution] = {d: FloatDistribution(0.0, 1.0) for d in domains}
        self.study = optuna.create_study(sampler=sampler)
        self.asked: list[optuna.trial.Trial] = []

    def tell(self, weights: np.ndarray, value: float) -> None:
        """See `Tool.tell`."""
        for trial in self.asked:  # what was asked for is replaced by where it led
            self.study.tell(trial, state=TrialState.FAIL)
        self.asked = []
        point = dict(zip(self.box, np.sqrt(weights).tolist(), strict=True))
        self.study.add_trial(create_trial(value=value, params=point, distributions=self.box))

    def ask(self, n: int) -> list[np.ndarray]:
        """See `Tool.ask`."""
        self.asked = [self.study.ask(self.box) for _ in range(n)]
        points = [np.array([t.params[d] for d in self.box]) ** 2 for t in self.asked]
        return [point / point.sum() for point in points]


class Ax:
    """Ax's default strategy on the weights of all domains but the last, whose sum is at most 1."""

    def __init__(self, domains: Sequence[str], seed: int) -> None:
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        logging.getLogger("ax").setLevel(logging.ERROR)
        # not the domains' own names: Ax refuses `python`, which sympy has
        self.free = [f"w{number}" for number in range(len(domains) - 1)]
        self.client = Client(random_seed=seed)
        self.client.configure_experiment(
            parameters=[
                RangeParameterConfig(name=d, parameter_type="float", bounds=(0.0, 1.0))
                for d in self.free
            ],
            parameter_constraints=[" + ".join(self.free) + " <= 1"],
        )
        self.client.configure_optimization(objective="-loss")
        self.asked: list[int] = []

    def tell(self, weights: np.ndarray, value: float) -> None:
        """See `Tool.tell`."""
        for index in self.asked:
            self.client.mark_trial_abandoned(trial_index=index)
        self.asked = []
        point = dict(zip(self.free, weights[:-1].tolist(), strict=True))
        index = self.client.attach_trial(parameters=point)
        self.client.complete_trial(trial_index=index, raw_data={"loss": value})

    def ask(self, n: int) -> list[np.ndarray]:
        """See `Tool.ask`."""
        asked = self.client.get_next_trials(max_trials=n)
        self.asked = list(asked)
        points = [np.array([point[d] for d in self.free]) for point in asked.values()]
        return [np.append(point, max(0.0, 1.0 - point.sum())) for point in points]
