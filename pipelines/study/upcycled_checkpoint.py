"""A promotion of imported checkpoints: upcycled, evaluated, and trained unless it is not asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.io import markers
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.checkpoint_training import MODEL as TRAINED_MODEL
from mixopt.pipelines.study.checkpoint_training import checkpoint_work
from mixopt.pipelines.study.imported_checks import plan_of, request_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_record import trained, untrained
from mixopt.pipelines.study.promotion_room import full_run_resources
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import MOE
from mixopt.pipelines.study.stage_trainings import ClusterMachine
from mixopt.selection.results import Predicted
from mixopt.study.results import Promotion


def upcycle_checkpoint(
    job: PromotionRun, models: ImportedModels, predicted: Mapping[str, Predicted]
) -> Promotion:
    """Upcycle the imported checkpoints of a promotion, and train the result; what is done stays.

    Args:
        job: of which they take the place of all trainings.
        models: Hugging Face checkpoints.
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
    upcycled = untrained(
        job,
        seed=found["seed"],
        before=found["metrics"],
        loads={domain: tuple(load) for domain, load in found["loads"].items()},
        entropies=found["entropies"],
        dropped=found["dropped"],
        expert_names=tuple(name for name in plan.conversion.origins if name != SEED),
        receipt=Receipt.from_json(found["receipt"]),
        files=found["model"],
        model=str(Path(job.folder.name) / MODEL),
        model_params=params,
        active_params=active,
    )
    if not job.settings.trains_upcycled:
        return upcycled
    work = checkpoint_work(job, plan.shape, job.folder / MODEL)
    (result,) = ClusterMachine(session).train("upcycled model", [work])
    model = job.folder / TRAINED_MODEL
    return trained(job, upcycled, MOE, result, predicted, model, markers.all_described(model))


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
