"""`result.json` read and held against the job: nothing wrong in it becomes a score."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.trials import Failure
from mixopt.trainers.failures import broken
from mixopt.trainers.job import RESULT, TrainingJob
from mixopt.trainers.progress import numbers

FAILURES = (
    Failure.DIVERGED,
    Failure.OUT_OF_MEMORY,
    Failure.BAD_DATA,
    Failure.WORKER_LOST,
    Failure.CRASHED,
)
MIXTURE_TOLERANCE = 1e-6
TOKENS_TOLERANCE = 0.01  # of the job's: whole batches, and the last one of a file
CHECKPOINT = "checkpoint"  # key of the result, and of a training's environment
VERIFIED = ("mixture", "tokens", "seed")  # what a trainer may say of what it did


@dataclass(frozen=True)
class Checked:
    """A result that fits its job.

    Attributes:
        metrics: all that are finite.
        diverged: metrics that the job needs and that are not finite.
        tokens: that it was trained on.
        verified: which of mixture, tokens and seed it says, and rightly.
        values: all that it says.
    """

    metrics: dict[str, float]
    diverged: tuple[str, ...]
    tokens: int
    verified: tuple[str, ...]
    values: Mapping[str, Any]

    def number(self, key: str) -> float | None:
        """An optional number."""
        value = self.values.get(key)
        return None if value is None else float(value)

    def by_domain(self, key: str) -> dict[str, float]:
        """An optional number per domain; {} if it says none."""
        return {name: float(value) for name, value in (self.values.get(key) or {}).items()}


def read(job: TrainingJob) -> dict[str, Any] | None:
    """What `result.json` in the job's folder says; None if it is not there.

    Raises:
        TrainerError: (broken contract) it is cut, or no JSON object.
    """
    path = Path(job.folder) / RESULT
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise broken(
            f"is cut or no JSON: {error}",
            str(path),
            "Write it whole: to another name first, then rename it; from one process alone",
        ) from error
    if not isinstance(values, dict):
        raise broken("is no JSON object", str(path), 'Write {"metrics": {"loss": 2.5}}')
    return values


def told_failure(values: Mapping[str, Any], job: TrainingJob) -> tuple[Failure, str] | None:
    """Why there are no metrics, and what happened, where the trainer says so.

    Raises:
        TrainerError: (broken contract) there is no such class.
    """
    failure = values.get("failure")
    if failure is None:
        return None
    if failure not in FAILURES:
        raise broken(
            f"`failure` is {failure!r}",
            str(Path(job.folder) / RESULT),
            f"Write one of {', '.join(FAILURES)}",
        )
    return Failure(failure), str(values.get("message") or "the trainer says so")


def check(values: Mapping[str, Any], job: TrainingJob) -> Checked:
    """The result that `values` are.

    Raises:
        TrainerError: (broken contract) a metric is missing or no number; another mixture, number of
            tokens or seed was trained; the checkpoint of a full run is missing; a value has another
            type.
    """
    where = str(Path(job.folder) / RESULT)
    metrics = numbers(values.get("metrics"), "metrics", where)
    missing = [name for name in job.metrics if name not in metrics]
    if missing:
        raise broken(
            f"`metrics` lacks {', '.join(missing)}",
            where,
            f"Measure it, or take it out of the study file. There are: {', '.join(metrics)}",
        )
    needed = job.metrics or tuple(metrics)
    _check_types(values, where)
    _check_mixture(values, job, where)
    _check_equal(values, job, where)
    _check_checkpoint(values, job, where)
    tokens = values.get("tokens")
    return Checked(
        {name: value for name, value in metrics.items() if math.isfinite(value)},
        tuple(name for name in needed if not math.isfinite(metrics[name])),
        job.tokens if tokens is None else int(tokens),
        tuple(key for key in VERIFIED if values.get(key) is not None),
        values,
    )


def most_tokens(values: Mapping[str, Any], job: TrainingJob) -> float:
    """How many tokens a training of `job` may report, whole batches counted."""
    return job.tokens + _tolerance(values, job)


def _tolerance(values: Mapping[str, Any], job: TrainingJob) -> float:
    return max(TOKENS_TOLERANCE * job.tokens, float(values.get("batch_tokens") or 0))


def _check_types(values: Mapping[str, Any], where: str) -> None:
    for key in ("tokens", "seed", "batch_tokens", "flops", "device_seconds"):
        value = values.get(key)
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (fits and math.isfinite(value)):
            raise broken(f"`{key}` must be a number, is {value!r}", where, "Write a number")
    for key in ("entropies", "dropped"):
        numbers(values.get(key) or {}, key, where)
    for key, kind in (("loads", list), ("environment", str)):
        about = values.get(key) or {}
        fits = isinstance(about, dict) and all(isinstance(v, kind) for v in about.values())
        if not fits:
            raise broken(
                f"`{key}` has another shape", where, "See result.schema.json, or leave it out"
            )
    for domain, shares in (values.get("loads") or {}).items():
        numbers(dict(enumerate(shares)), f"loads.{domain}", where)


def _check_mixture(values: Mapping[str, Any], job: TrainingJob, where: str) -> None:
    if values.get("mixture") is None:
        return
    trained = numbers(values["mixture"], "mixture", where)
    for domain in {**job.mixture, **trained}:
        asked, got = job.mixture.get(domain, 0.0), trained.get(domain, 0.0)
        if not abs(asked - got) <= MIXTURE_TOLERANCE:
            raise broken(
                f"`mixture.{domain}` is {got:g}; the job has {asked:g}: not what was asked",
                where,
                "Train on `mixture` of job.json, by domain name; what data is left for rounding "
                "belongs into `environment`",
            )


def _check_equal(values: Mapping[str, Any], job: TrainingJob, where: str) -> None:
    tokens, seed = values.get("tokens"), values.get("seed")
    if tokens is not None and abs(tokens - job.tokens) > _tolerance(values, job):
        raise broken(
            f"`tokens` is {tokens:,}; the job has {job.tokens:,}",
            where,
            "Train on `tokens` of job.json; whole batches may differ: say `batch_tokens`",
        )
    if seed is not None and seed != job.seed:
        raise broken(f"`seed` is {seed}; the job has {job.seed}", where, "Use `seed` of job.json")


def _check_checkpoint(values: Mapping[str, Any], job: TrainingJob, where: str) -> None:
    checkpoint = values.get(CHECKPOINT)
    if checkpoint is None and job.role != "promote":
        return
    hint = "Name a file or folder in the job's folder, relative to it"
    if not isinstance(checkpoint, str):
        raise broken("`checkpoint` is missing: the full run is registered by it", where, hint)
    home = Path(job.folder).resolve()
    path = (home / checkpoint).resolve()
    if path.exists() and not path.is_relative_to(home):
        raise broken(f"`checkpoint`: {checkpoint} leads out of the folder, to {path}", where, hint)
    if not path.exists():
        raise broken(f"`checkpoint`: there is no {checkpoint} in the folder", where, hint)
