"""A promotion of imported checkpoints: upcycled and evaluated, not trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.imported_checks import plan_of, request_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.study.results import Promotion


def upcycle_checkpoint(
    job: PromotionRun, models: ImportedModels, about: Mapping[str, Any]
) -> Promotion:
    """Upcycle the imported checkpoints of a promotion on a worker, or what is left of it.

    Args:
        job: of which they take the place of all trainings.
        models: Hugging Face checkpoints.
        about: the fields of the promotion that are known before.

    Raises:
        MixoptError: it fails; see `mixopt.workers.checkpoint_job.upcycle_checkpoint`.
    """
    from mixopt.workers.checkpoint_job import (  # imports Ray
        MODEL,
        CheckpointUpcycling,
        upcycle_checkpoint_on_cluster,
    )

    session, study = job.session, job.session.study
    plan = plan_of(study, session.corpus, models)
    session.connect()
    session.display.say(f"upcycling {', '.join(models.names.values())}: {job.settings.upcycler}")
    found = upcycle_checkpoint_on_cluster(
        CheckpointUpcycling(
            request=request_of(study, models),
            recipe=dataclasses.asdict(session.evaluation_recipe()),
            corpus=str(study.corpus_path),
            folder=str(job.folder),
            verified=session.verified,
            tasks=session.tasks,
            weighed=session.weighed,
        ),
        session.resources,
        session.display.warn,
    )
    params, active = plan.body_params
    return Promotion(
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
