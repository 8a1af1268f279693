"""Trainings of the embedded corpus, done once: many mixtures at two sizes with several seeds.

`train_all` writes a CSV file per cohort, whole or not at all, and trains no cohort whose file is
there. `read` gives the trainings of all seeds that are whole.

Shapes: z sizes, S seeds, M mixtures, q metrics, m domains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.embedded import corpus_in, drawn_mixtures
from mixopt.core.errors import RunsError, TrainingError
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Fidelity
from mixopt.corpus.shards import Corpus
from mixopt.io.files import write_bytes
from mixopt.io.locks import hold
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import train

OBJECTIVE = "descriptions"  # never trained on
VOCABULARY = 512  # of 2,048 tokens, the output layer would be half of what a step computes
COHORT = 10


@dataclass(frozen=True)
class Size:
    """A proxy of the pool, and how long it is trained."""

    name: str
    model: ModelConfig
    tokens: int
    learning_rate: float

    @property
    def fidelity(self) -> Fidelity:
        """What a training of it costs."""
        return Fidelity(self.name, self.model.active_params(), self.tokens)

    @property
    def recipe(self) -> Recipe:
        """Short steps, because there are few tokens; evaluated at the end alone."""
        return Recipe(
            sequence_length=64,
            learning_rate=self.learning_rate,
            precision="fp32",
            evaluations=1,
            evaluation_tokens=4096,
            evaluation_share=0.3,
            checkpoint_seconds=float("inf"),
        )


# Ten mixtures with three seeds: the objective's signal over noise is 3.1 (small) and 3.5 (large).
# With half of the small one's tokens it is 1.3, at a learning rate of .01 it is 2.4.
SMALL = Size("small", ModelConfig(width=32, heads=2, expert_width=64), 16_384, 0.02)
LARGE = Size("large", ModelConfig(width=48, heads=4, expert_width=64), 32_768, 0.01)
SIZES = (SMALL, LARGE)


@dataclass(frozen=True)
class Trained:
    """Finished trainings.

    Attributes:
        domains: m names.
        metrics: q names.
        sizes: z fidelities, the target last.
        weights: (M, m) mixtures.
        values: (z, S, M, q) what was measured.
    """

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    sizes: tuple[Fidelity, ...]
    weights: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Cohort:
    """Trainings of one size and seed that are done together, and the file of their results."""

    size: Size
    seed: int
    first: int
    job: Job
    path: Path

    def train(self) -> None:
        """Train it, and write the file: a row per training.

        Raises:
            TrainingError: a proxy diverged.
        """
        with tempfile.TemporaryDirectory() as folder:
            outcomes = train(self.job, Path(folder), threads=1, device="cpu")
        rows = []
        for number, outcome in enumerate(outcomes):
            if outcome.result is None:
                raise TrainingError(f"mixture {self.first + number}: {outcome.message}")
            weights = self.job.mixtures[number].as_dict()
            rows.append(
                {
                    "mixture": self.first + number,
                    "size": self.size.name,
                    "seed": self.seed,
                    **{f"weight/{domain}": weight for domain, weight in weights.items()},
                    **outcome.result.metrics,
                    "seconds": outcome.result.cost.device_seconds,
                }
            )
        write_bytes(self.path, pl.DataFrame(rows).write_csv().encode())


def train_all(
    folder: Path, mixtures: int, seeds: int, say: Callable[[str], None], sizes: tuple[Size, ...]
) -> int:
    """Train what is not trained yet, the seeds one after the other; how many cohorts that were.

    Raises:
        LedgerError: another process trains in this folder.
        TrainingError: a proxy diverged.
    """
    with hold(folder / "lock", "the pool"):
        corpus = corpus_in(folder / "corpus", vocabulary=VOCABULARY)
        every = cohorts(folder, corpus, mixtures, range(seeds), sizes)
        missing = [cohort for cohort in every if not cohort.path.is_file()]
        for number, cohort in enumerate(missing):
            cohort.train()
            say(f"{number + 1} of {len(missing)}: {cohort.path.name}")
    return len(missing)


def cohorts(
    folder: Path, corpus: Corpus, mixtures: int, seeds: Iterable[int], sizes: tuple[Size, ...]
) -> Iterator[Cohort]:
    """All cohorts of the pool, seed by seed.

    A file is named for all that its trainings depend on: other settings, packages whose text is
    another, or another number of mixtures are other files.
    """
    drawn = drawn_mixtures(corpus, mixtures)
    for seed in seeds:
        for size in sizes:
            for first in range(0, mixtures, COHORT):
                some = tuple(drawn[first : first + COHORT])
                job = Job(
                    size.model,
                    size.recipe,
                    str(corpus.path),
                    some,
                    (seed,) * len(some),
                    size.tokens,
                    weighed=(OBJECTIVE,),
                )
                name = f"{size.name}-{seed}-{first:03d}-{job.training_hash(corpus.hash)[:12]}.csv"
                yield Cohort(size, seed, first, job, folder / "trainings" / name)


def read(folder: Path, mixtures: int, sizes: tuple[Size, ...]) -> Trained:
    """The trainings in `folder`, of the seeds with which all mixtures were trained at all sizes.

    Raises:
        CorpusError: nothing was trained in `folder`.
        RunsError: there are fewer than two such seeds.
    """
    corpus = Corpus.open(folder / "corpus")
    metrics = tuple(f"bpb/{name}" for name in corpus.validation_domains)
    whole: list[np.ndarray] = []
    while True:
        own = list(cohorts(folder, corpus, mixtures, [len(whole)], sizes))
        if not all(cohort.path.is_file() for cohort in own):
            break
        rows = [pl.read_csv(cohort.path).select(metrics) for cohort in own]  # size by size
        whole.append(pl.concat(rows).to_numpy().reshape(len(sizes), mixtures, len(metrics)))
    if len(whole) < 2:
        raise RunsError(
            f"{len(whole)} seeds of {mixtures} mixtures are trained; a replay needs 2",
            where=str(folder),
            hint=f"Run python -m benchmarks.proposers train {folder}",
        )
    drawn = drawn_mixtures(corpus, mixtures)
    return Trained(
        corpus.domains,
        metrics,
        tuple(size.fidelity for size in sizes),
        np.array([mixture.weights for mixture in drawn]),
        np.stack(whole, axis=1),
    )
