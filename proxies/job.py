"""A job: one cohort of proxies to train. Needs no torch, and travels to a worker as it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixopt.core.errors import CheckpointError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import HARMLESS, Recipe
from mixopt.core.trials import Limits
from mixopt.models.config import ModelConfig

PER_PROXY = ("mixtures", "seeds", "learning_rates", "identity", "limits")


@dataclass(frozen=True)
class Job:
    """K proxies of one shape, trained together for equally many tokens.

    Attributes:
        model: their shape.
        recipe: how they are trained.
        corpus: folder of the corpus.
        mixtures: one per proxy.
        seeds: one per proxy; seeds the initial weights and the data order.
        tokens: training tokens of each proxy.
        token_limits: domain → tokens it is cut to (simulated repetition); None cuts nothing.
        initial: a `.safetensors` state that every proxy starts from; None starts from the seed.
        learning_rates: one peak rate per proxy; None gives all the recipe's.
        identity: what the caller binds into checkpoints besides the job itself.
        tasks: name → file of prepared questions (`mixopt.corpus.tasks`), named for its content.
        limits: one per proxy, beyond which it is pruned, or None where it never is; None for all.
        weighed: domains and tasks that count most (`Recipe.final_tokens`); none: all alike.
    """

    model: ModelConfig
    recipe: Recipe
    corpus: str
    mixtures: tuple[Mixture, ...]
    seeds: tuple[int, ...]
    tokens: int
    token_limits: dict[str, int] | None = None
    initial: str | None = None
    learning_rates: tuple[float, ...] | None = None
    identity: str = ""
    tasks: dict[str, str] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()
    limits: tuple[Limits | None, ...] | None = None

    def __post_init__(self) -> None:
        cohort = len(self.mixtures)
        if cohort < 1 or len(self.seeds) != cohort:
            raise TrainingError(f"{cohort} mixtures but {len(self.seeds)} seeds", where="job")
        if self.learning_rates is not None and len(self.learning_rates) != cohort:
            raise TrainingError(
                f"{cohort} mixtures but {len(self.learning_rates)} learning rates", where="job"
            )
        if self.limits is not None and len(self.limits) != cohort:
            raise TrainingError(f"{cohort} mixtures but limits of {len(self.limits)}", where="job")
        if self.tokens < 1:
            raise TrainingError(f"tokens must be at least 1, is {self.tokens}", where="job")

    @property
    def cohort(self) -> int:
        """How many proxies train together, K."""
        return len(self.mixtures)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.recipe.steps(self.tokens)

    @property
    def evaluation_steps(self) -> frozenset[int]:
        """Steps after which its proxies are evaluated; the last one is among them."""
        count = self.recipe.evaluations
        return frozenset(max(1, self.steps * (i + 1) // count) for i in range(count))

    def evaluated_tokens(self, names: Iterable[str], *, final: bool) -> dict[str, int]:
        """How much text an evaluation takes of each domain or task.

        Args:
            names: of domains and tasks.
            final: whether it is that of the result, or a point of the curve.
        """
        if not final:
            return dict.fromkeys(names, self.recipe.curve_tokens)
        return {name: self.recipe.final_tokens(name, self.weighed) for name in names}

    @property
    def micro_batches(self) -> int:
        """In how many parts a step's batch is run."""
        return self.recipe.micro_batches

    def smaller(self, micro_batches: int) -> int:
        """In how many parts after one in `micro_batches` ran out of memory; 0 if there are no more.

        At least twice as many, of equally many sequences.
        """
        batch = self.recipe.batch_sequences
        more = range(2 * micro_batches, batch + 1)
        return next((parts for parts in more if batch % parts == 0), 0)

    def differences(self, other: object) -> list[str]:
        """What a cohort must have in common and these do not; jobs without any `join`."""
        if not isinstance(other, Job):
            return ["trainer"]
        names = (field.name for field in dataclasses.fields(self))
        return [n for n in names if n not in PER_PROXY and getattr(self, n) != getattr(other, n)]

    @classmethod
    def join(cls, jobs: Sequence[Job]) -> Job:
        """One job that trains the proxies of all `jobs`, in their order.

        Raises:
            TrainingError: they differ in what a cohort must have in common.
        """
        first = jobs[0]
        differs = {name for job in jobs for name in first.differences(job)}
        if differs:
            raise TrainingError(
                f"trainings of different {', '.join(sorted(differs))} cannot be one", where="job"
            )
        rates: tuple[float, ...] | None = None
        if any(job.learning_rates is not None for job in jobs):
            rates = tuple(
                rate
                for job in jobs
                for rate in job.learning_rates or (job.recipe.learning_rate,) * job.cohort
            )
        limits: tuple[Limits | None, ...] | None = None
        if any(job.limits is not None for job in jobs):
            limits = tuple(limit for job in jobs for limit in job.limits or (None,) * job.cohort)
        return dataclasses.replace(
            first,
            limits=limits,
            mixtures=tuple(mixture for job in jobs for mixture in job.mixtures),
            seeds=tuple(seed for job in jobs for seed in job.seeds),
            learning_rates=rates,
            identity="+".join(job.identity for job in jobs),
        )

    def training_hash(self, corpus_hash: str) -> str:
        """Identity of the work: equal hashes may resume each other's checkpoints.

        Raises:
            CheckpointError: the initial state cannot be read.
        """
        values = {**dataclasses.asdict(self), "model": self.model.to_json()}
        values["mixtures"] = [mixture.as_dict() for mixture in self.mixtures]
        values.pop("corpus")  # folders may move, their content may not change
        values["tasks"] = {name: Path(path).name for name, path in self.tasks.items()}
        if self.initial is not None:
            values["initial"] = _content(Path(self.initial))
        for name in HARMLESS:
            values["recipe"].pop(name)
        if self.recipe.evaluation_share is None:
            values["weighed"] = ()  # then all sets are evaluated alike, whatever is weighed
        if self.limits is None:
            values.pop("limits")  # absent, not null: test_pinned.py holds the hash
        else:
            values["limits"] = [limit and limit.to_json() for limit in self.limits]
        text = json.dumps([values, corpus_hash], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"the initial state cannot be read: {error.strerror}",
            where=str(path),
            hint="Run the stage that makes it again",
        ) from error
