"""The built-in proxy by the trainers' contract: what `trainer:` of a study file may name.

    trainer: mixopt.proxies.trainer:train
    trainer: {command: "python -m mixopt.proxies.trainer {job}"}

It trains one proxy as a study does by itself (`ray.cohort: 1`), to the last digit. `settings` of
the job are those of a `mixopt.proxies.job.Job`:

    model          shape, the keys of `proxy.model`
    recipe         the keys of `proxy.recipe`
    tasks          name → file of prepared questions
    initial        weights to begin with
    keep_tokens    validation domains of which the loss of every token is kept
    weighed        domains and tasks that are evaluated on more text (default: of the job's metrics)

The full run (`role: promote`) keeps its weights; they are the checkpoint of the result.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mixopt.core.counts import with_token_counts
from mixopt.core.errors import StudyError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Outcome
from mixopt.corpus.shards import Corpus
from mixopt.io.token_losses import TOKENS
from mixopt.io.trial_files import CURVE
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.trainers.call import run
from mixopt.trainers.job import TrainingJob, TrainingResult

FOLDER = "training"  # in the job's folder: `mixopt.proxies.training` keeps a curve of its own there
KEYS = ("model", "recipe", "tasks", "initial", "keep_tokens", "weighed")


def train(job: TrainingJob, report: Callable[..., None]) -> TrainingResult:
    """Train the job's proxy, going on from its checkpoint if there is one.

    Raises:
        TrainingError: the job has no corpus, or a key of its settings is unknown.
        CorpusError: the corpus cannot be used.
        StudyError: a value of model or recipe is out of range.
    """
    from mixopt.proxies import training  # imports torch, for which a wrong job does not wait

    proxy, folder = proxy_job(job), Path(job.folder) / FOLDER

    def on_progress(progress: training.Progress) -> None:
        more: dict[str, Any] = {"note": progress.note} if progress.note else {}
        point = _last_point(folder) if progress.phase == "evaluation" else {}
        metrics = None
        if point.get("tokens") == progress.tokens:
            metrics = point["on_curve_text"] or point["metrics"]
            more["training"] = point["training"]
        report(progress.tokens, metrics, **more)

    (outcome,) = training.train(
        proxy,
        folder,
        on_progress,
        threads=job.threads,
        keep_weights=job.role == "promote",
        keep_tokens=job.settings.get("keep_tokens") or (),
        device="cuda" if job.gpus else "cpu",
    )
    if (folder / TOKENS).exists():
        (folder / TOKENS).replace(Path(job.folder) / TOKENS)
    return _result(job, proxy, outcome)


def proxy_job(job: TrainingJob) -> Job:
    """The built-in proxy's job that `job` asks for.

    Raises:
        TrainingError: it has no corpus, or a key of its settings is unknown.
        CorpusError: the corpus is absent or broken.
        StudyError: a value of model or recipe is out of range.
    """
    settings, where = job.settings, "settings of mixopt.proxies.trainer"
    if job.corpus is None:
        raise TrainingError(
            "the built-in proxy trains on a corpus, and the study has none", where="corpus"
        )
    unknown = settings.keys() - set(KEYS)
    if unknown or "model" not in settings:
        raise TrainingError(
            f"unknown: {', '.join(sorted(unknown))}" if unknown else "`model` is missing",
            where=where,
            hint=f"There are {', '.join(KEYS)}",
        )
    try:
        model = ModelConfig(**settings["model"])
        recipe = Recipe(**with_token_counts(settings.get("recipe") or {}))
    except StudyError:
        raise
    except (TypeError, ValueError) as error:
        raise TrainingError(str(error), where=where) from error
    corpus, tasks = Corpus.open(job.corpus), dict(settings.get("tasks") or {})
    asked = settings.get("weighed")
    weighed = weighed_by(job, corpus, tasks) if asked is None else tuple(asked)
    sets = len(corpus.validation_domains) + len(tasks)
    recipe = recipe.affordable(job.tokens, sets, len(weighed))
    limits = {name: domain.limit or domain.tokens for name, domain in job.domains.items()}
    cut = any(domain.limit is not None for domain in job.domains.values())
    return Job(
        model=model.of_text(corpus.vocab_size, corpus.end_of_text_id),
        recipe=split(recipe, job.memory_failures),
        corpus=job.corpus,
        mixtures=(Mixture.exact(job.mixture),),
        seeds=(job.seed,),
        tokens=job.tokens,
        token_limits=limits if cut else None,
        initial=settings.get("initial"),
        identity=job.identity,
        tasks=tasks,
        weighed=weighed,
    )


def weighed_by(job: TrainingJob, corpus: Corpus, tasks: Iterable[str]) -> tuple[str, ...]:
    """Validation domains and tasks that the metrics of `job` are of."""
    counted = {name.split("/", 1)[1] for name in job.metrics if "/" in name}
    return tuple(name for name in (*corpus.validation_domains, *tasks) if name in counted)


def split(recipe: Recipe, failures: int) -> Recipe:
    """The recipe with its batch in more parts: of each failure of memory, twice as many or more."""
    parts, batch = recipe.micro_batches, recipe.batch_sequences
    for _ in range(failures):
        parts = next((n for n in range(2 * parts, batch + 1) if batch % n == 0), parts)
    return dataclasses.replace(recipe, micro_batches=parts)


def _last_point(folder: Path) -> dict[str, Any]:
    """The last evaluation as the curve's file has it; {} before the first."""
    lines = (folder / CURVE).read_text().splitlines()
    point: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return point


def _result(job: TrainingJob, proxy: Job, outcome: Outcome) -> TrainingResult:
    if outcome.result is None:
        return TrainingResult(failure=str(outcome.failure), message=outcome.message)
    result = outcome.result
    return TrainingResult(
        metrics=result.metrics,
        mixture=proxy.mixtures[0].as_dict(),
        tokens=result.cost.tokens,
        seed=proxy.seeds[0],
        batch_tokens=proxy.recipe.tokens_per_step,
        checkpoint=f"{FOLDER}/model.safetensors" if job.role == "promote" else None,
        flops=result.cost.flops,
        device_seconds=result.cost.device_seconds,
        environment=result.environment,
        loads={domain: tuple(shares) for domain, shares in result.loads.items()},
        entropies=result.entropies,
        dropped=result.dropped,
    )


if __name__ == "__main__":
    run(train, Path(sys.argv[1]))
