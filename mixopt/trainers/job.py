"""What passes between mixopt and a trainer: the job in, progress and result out, as JSON files.

    folder/job.json         the job, written before the trainer starts (job.schema.json)
    folder/progress.jsonl   a line per report of the trainer (progress.schema.json)
    folder/result.json      what it measured, written by the trainer at its end (result.schema.json)

The keys are stable: `VERSION` rises where one changes its meaning. A trainer needs none of this
module; what is written in Python may use it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Fidelity
from mixopt.io import files

VERSION = 1
JOB = "job.json"
PROGRESS = "progress.jsonl"
RESULT = "result.json"


@dataclass(frozen=True)
class Domain:
    """What a trainer may read of a domain.

    Attributes:
        tokens: that it has for training.
        path: where they are; None where the study does not know.
        limit: of them the first so many are to be used, so that a short training repeats them as
            often as the full run would; None uses all.
    """

    tokens: int
    path: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class TrainingJob:
    """One training that is asked of a trainer.

    >>> job = TrainingJob(
    ...     "demo", "7", {"web": 0.75, "code": 0.25}, 1_000_000, 0, Fidelity("proxy", 0, 1_000_000),
    ...     folder="/studies/demo/trials/0007", metrics=("loss/web",),
    ... )
    >>> TrainingJob.from_json(job.to_json()) == job
    True

    Attributes:
        study: its name.
        trial: names the training within the study: `7`, `promotion`.
        mixture: domain → weight; the weights sum to 1.
        tokens: to train on.
        seed: of initial weights and data order.
        fidelity: model and tokens of the study file; its `params` are 0 where they are not known.
        folder: absolute path of job, progress, result and of the trainer's own checkpoints.
        metrics: what the result must have at least.
        role: `proxy`, or `promote` for the full run.
        resume: whether an earlier attempt began here; its checkpoints may be there.
        attempt: counted from 1, in this folder.
        memory_failures: earlier attempts that ran out of memory: the trainer may split its batch.
        domains: what there is to train on.
        corpus: folder of the corpus; None in a study without one.
        initial_model: folder of the upcycled model that the full run begins from; None where it
            begins with weights of its own.
        settings: of the trainer, as the study file has them.
        threads: CPU threads that it may use.
        gpus: that it may use.
        identity: equal for trainings whose checkpoints are interchangeable.
        trainer: digest of the trainer's identity, to be compared where it runs; empty is not.
        version: of these keys.
    """

    study: str
    trial: str
    mixture: Mapping[str, float]
    tokens: int
    seed: int
    fidelity: Fidelity
    folder: str
    metrics: tuple[str, ...] = ()
    role: str = "proxy"
    resume: bool = False
    attempt: int = 1
    memory_failures: int = 0
    domains: Mapping[str, Domain] = field(default_factory=dict)
    corpus: str | None = None
    initial_model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    gpus: float = 0
    identity: str = ""
    trainer: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.role not in ("proxy", "promote"):
            raise TrainingError(f"must be proxy or promote, is {self.role!r}", where="role")
        if not Path(self.folder).is_absolute():
            raise TrainingError(f"must be an absolute path, is {self.folder!r}", where="folder")

    def to_json(self) -> dict[str, Any]:
        """The job as JSON-able values; `from_json` gives it back exactly."""
        return dataclasses.asdict(self) | {"metrics": list(self.metrics)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingJob:
        """The job that `to_json` described."""
        built = {
            "fidelity": Fidelity(**values["fidelity"]),
            "domains": {name: Domain(**about) for name, about in values["domains"].items()},
            "metrics": tuple(values["metrics"]),
        }
        return cls(**{**values, **built})

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        """The job in the file at `path`.

        Raises:
            FileError: it cannot be read, or is no job of this version of mixopt.
        """
        return files.read_json(path, cls.from_json, hint="Let mixopt write it: run the study again")

    def write(self) -> Path:
        """Write `job.json` into the job's folder; its path."""
        path = Path(self.folder) / JOB
        files.write_json(path, self.to_json())
        return path

    def report(self, tokens: int, metrics: Mapping[str, float] | None = None, **more: Any) -> None:
        """Append a line to `progress.jsonl`.

        Args:
            tokens: trained so far.
            metrics: of an evaluation, if there was one.
            more: `training` (loss, learning rate, …), `note`, and whatever else is worth keeping.
        """
        values: dict[str, Any] = {"tokens": tokens, **_plain(more)}
        if metrics is not None:
            values["metrics"] = _plain(metrics)
        with (Path(self.folder) / PROGRESS).open("a") as file:
            file.write(json.dumps(values) + "\n")

    def finish(self, result: TrainingResult) -> None:
        """Write `result.json`."""
        files.write_json(Path(self.folder) / RESULT, result.to_json())


@dataclass(frozen=True)
class TrainingResult:
    """What a trainer says at its end. Of the optional values None means that it does not say.

    Attributes:
        metrics: name → final value.
        mixture: that it trained on; compared with the job's, to 1e-6.
        tokens: that it trained on; compared with the job's, to 1 % or `batch_tokens`.
        seed: that it used; compared with the job's.
        batch_tokens: of one optimizer step: whole steps may miss the job's tokens by less.
        checkpoint: file or folder with the trained model, relative to the job's folder.
        flops: of the whole training.
        device_seconds: of the whole training, all attempts.
        environment: versions and devices, as texts.
        loads: expert load per domain: domain → share of assignments per expert.
        entropies: domain → nats of entropy of a token's gates.
        dropped: domain → share of tokens that reach no expert.
        failure: why there are no metrics: `diverged`, `out_of_memory`, `bad_data`, `worker_lost` or
            `crashed`.
        message: what happened, for a person.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    mixture: Mapping[str, float] | None = None
    tokens: int | None = None
    seed: int | None = None
    batch_tokens: int | None = None
    checkpoint: str | None = None
    flops: float | None = None
    device_seconds: float | None = None
    environment: Mapping[str, str] | None = None
    loads: Mapping[str, tuple[float, ...]] | None = None
    entropies: Mapping[str, float] | None = None
    dropped: Mapping[str, float] | None = None
    failure: str | None = None
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What it says, as JSON-able values."""
        values = dataclasses.asdict(self)
        return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    """`value` with Python's numbers and lists for numpy's and torch's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
