"""A full run: what a worker is given in place of proxies, alone or as one of several processes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.phases import Phase
from mixopt.core.trials import Outcome
from mixopt.io import training_log
from mixopt.proxies.job import Job

if TYPE_CHECKING:
    from mixopt.proxies.full_run.contract import ModelKind
    from mixopt.proxies.full_run.progress import FullProgress
    from mixopt.proxies.full_run.world import World

SCRATCH = ".ray-train"  # in a run's folder: where Ray Train checks that every process sees it


@dataclass(frozen=True)
class FullJob:
    """One model, trained without the proxies' axis.

    Attributes:
        job: what is trained: one mixture, one seed.
        processes: how many train it together, its parameters in pieces on all of them.
        recompute: whether activations are computed again for gradients, for less memory.
        checkpoint: folder of the Hugging Face model that is trained, by transformers' own module;
            what it holds must be in the job's identity. Empty: our transformer.
        phases: which parameters move when, in the job's identity as well; empty: all.
    """

    job: Job
    processes: int = 1
    recompute: bool = False
    checkpoint: str = ""
    phases: tuple[Phase, ...] = ()

    cohort = 1

    @property
    def tokens(self) -> int:
        """Training tokens."""
        return self.job.tokens

    @property
    def corpus(self) -> str:
        """Folder of the corpus."""
        return self.job.corpus

    @property
    def micro_batches(self) -> int:
        """In how many parts a step's batch is run."""
        return self.job.micro_batches

    def smaller(self, micro_batches: int) -> int:
        """See `Job.smaller`; a part has a sequence for each process at least."""
        more = self.job.smaller(micro_batches)
        fits = more and self.job.recipe.batch_sequences // more >= self.processes
        return more if fits else 0

    def differences(self, other: object) -> list[str]:
        """What a cohort must have in common and these do not: there are no cohorts."""
        return ["full run"]

    def train(
        self,
        folder: Path,
        world: World,
        report: Callable[[FullProgress], None],
        micro_batches: int,
        *,
        keep_weights: bool,
    ) -> Outcome:
        """The outcome, in every process of `world`; see `train_full`.

        The first process adds its reports to the folder's training log.
        """
        from mixopt.proxies.full_run.training import train_full

        job = self.job
        if micro_batches > job.micro_batches:
            recipe = dataclasses.replace(job.recipe, micro_batches=micro_batches)
            job = dataclasses.replace(job, recipe=recipe)

        began = time.time()

        def reported(progress: FullProgress) -> None:
            if world.first:
                values = {"began": began, **dataclasses.asdict(progress)}
                if not progress.metrics:  # of hundreds of experts they are long
                    del values["loads"]
                training_log.append(folder, values)
                report(progress)

        return train_full(
            *(job, folder, world, reported),
            keep_weights=keep_weights,
            kind=self._kind(),
            phases=self.phases,
        )

    def _kind(self) -> ModelKind:
        from mixopt.proxies.full_run.training import ours

        if not self.checkpoint:
            return ours(self.recompute)
        from mixopt.proxies.full_run.foreign import TransformersModel

        return TransformersModel.kind(Path(self.checkpoint), self.recompute)
