"""A training by the study's own trainer: what a worker is given in place of proxies to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from mixopt.core.trials import Limits, Outcome
from mixopt.trainers.base import Trainer
from mixopt.trainers.job import TrainingJob
from mixopt.trainers.run import Progress, run_training


@dataclass(frozen=True)
class OwnJob:
    """One training, alone: trainers of the user's train no cohorts.

    Attributes:
        trainer: what trains.
        job: what is trained.
        limits: beyond which it is pruned; None where it never is.
        timeout: seconds that an attempt may take; None for any.
        heartbeat: seconds that it may be silent; None for any.
        grace: seconds that it has to end by itself.
    """

    trainer: Trainer
    job: TrainingJob
    limits: Limits | None = None
    timeout: float | None = None
    heartbeat: float | None = None
    grace: float = 30.0

    cohort = 1
    micro_batches = 1  # of the first attempt; the trainer is told how often memory did not suffice

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return self.job.tokens

    @property
    def corpus(self) -> str:
        """Folder of the corpus; empty if there is none."""
        return self.job.corpus or ""

    def smaller(self, micro_batches: int) -> int:
        """It is tried again whenever memory did not suffice: the trainer may split its batch."""
        return 2 * micro_batches

    def differences(self, other: object) -> list[str]:
        """What a cohort must have in common and these do not: there are no cohorts."""
        return ["trainer"]

    def train(self, report: Callable[[Progress], None], threads: int) -> list[Outcome]:
        """The outcome of an attempt.

        Raises:
            TrainerError: it failed, for another reason than that the training diverged.
            MixoptError: its folder cannot be used.
        """
        outcome = run_training(
            self.trainer,
            dataclasses.replace(self.job, threads=threads),
            limits=self.limits,
            timeout=self.timeout,
            heartbeat=self.heartbeat,
            grace=self.grace,
            report=report,
        )
        return [outcome]
