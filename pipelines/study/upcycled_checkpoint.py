"""A promotion of imported checkpoints: upcycled, evaluated, and trained unless it is not asked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.trials import TrialResult
from mixopt.io import markers
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.checkpoint_training import MODEL as TRAINED_MODEL
from mixopt.pipelines.study.checkpoint_training import checkpoint_work
from mixopt.pipelines.study.imported_checks import plan_of, request_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_room import full_run_resources
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import KINDS, UPCYCLED
from mixopt.pipelines.study.stage_trainings import ClusterMachine
from mixopt.selection.results import Predicted
from mixopt.study.results import Promotion, Stage


def upcycle_checkpoint(
    job: PromotionRun,
    models: ImportedModels,
    about: Mapping[str, Any],
    predicted: Mapping[str, Predicted],
) -> Promotion:
    """Upcycle the imported checkpoints of a promotion, and train the result; what is done stays.

    Args:
        job: of which they take the place of all trainings.
        models: Hugging Face checkpoints.
        about: the fields of the promotion that are known before.
        predicted: by metric, of a proxy on its mixture.

    Raises:
        MixoptError: it fails; see `mixopt.workers.checkpoint_job.upcycle_checkpoint`.
        TrainingError: the training failed for good.
    """
    from mixopt.workers.checkpoint_job import MODEL, upcycled_checkpoint  # imports Ray

    session, study = job.session, job.session.study
    plan = plan_of(study, session.corpus, models)
    found = upcycled_checkpoint(job.folder) or _upcycled(job, models)
    params, active = plan.body_params
    upcycled = Promotion(
        **about,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        tokens=0,
        device_seconds=0.0,
        stages=(),
        seed=found["seed"],
        before=found["metrics"],
        after={},
        predicted={},
        loads={domain: tuple(load) for domain, load in found["loads"].items()},
        entropies=found["entropies"],
        dropped=found["dropped"],
        expert_names=tuple(name for name in plan.conversion.origins if name != SEED),
        receipt=Receipt.from_json(found["receipt"]),
        curve=(),
        files=found["model"],
        model=str(Path(job.folder.name) / MODEL),
        model_params=params,
        active_params=active,
    )
    if not job.settings.trains_upcycled:
        return upcycled
    work = checkpoint_work(job, plan.shape, job.folder / MODEL)
    (result,) = ClusterMachine(session).train("upcycled model", [work])
    return _trained(upcycled, result, predicted, job.folder)


def _upcycled(job: PromotionRun, models: ImportedModels) -> dict[str, Any]:
    """The promotion's model, upcycled and evaluated on a worker."""
    from mixopt.workers.checkpoint_job import CheckpointUpcycling, upcycle_checkpoint_on_cluster

    session, study = job.session, job.session.study
    session.connect()
    session.display.say(f"upcycling {', '.join(models.names.values())}: {job.settings.upcycler}")
    return upcycle_checkpoint_on_cluster(
        CheckpointUpcycling(
            request=request_of(study, models),
            recipe=dataclasses.asdict(session.evaluation_recipe()),
            corpus=str(study.corpus_path),
            folder=str(job.folder),
            verified=session.verified,
            tasks=session.tasks,
            weighed=session.weighed,
            document_mask=job.settings.model.document_mask,
        ),
        full_run_resources(study),
        session.display.warn,
    )


def _trained(
    upcycled: Promotion, result: TrialResult, predicted: Mapping[str, Predicted], folder: Path
) -> Promotion:
    """What the promotion is once its model was trained."""
    spent, metrics = result.cost, result.metrics
    return dataclasses.replace(
        upcycled,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        tokens=spent.tokens,
        device_seconds=spent.device_seconds,
        stages=(Stage(UPCYCLED, KINDS[UPCYCLED], spent.tokens, spent.device_seconds, metrics),),
        after=metrics,
        predicted=predicted,
        loads={domain: tuple(load) for domain, load in result.loads.items()},
        entropies=result.entropies,
        dropped=result.dropped,
        curve=tuple(result.curve),
        files=markers.all_described(folder / TRAINED_MODEL),
        model=str(Path(folder.name) / TRAINED_MODEL),
    )
