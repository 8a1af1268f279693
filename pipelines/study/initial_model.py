"""The model that a trainer of the user's begins from (`promote.upcycle`): where it lies, its size.

`stages_for_trainer` makes it.
"""

from __future__ import annotations

from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study.checkpoint_training import trained_shape
from mixopt.pipelines.study.imported_checks import plan_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import UPCYCLED
from mixopt.pipelines.study.session import Session
from mixopt.study.promote import Promote

INITIAL = "initial"  # in a promotion's folder: our upcycled model as a Hugging Face checkpoint
CHECKPOINT = "model"  # likewise, of imported checkpoints: `mixopt.workers.checkpoint_job.MODEL`


def initial_folder(job: PromotionRun) -> Path:
    """Where the upcycled model of a promotion lies, or will lie.

    A Hugging Face checkpoint; of our own format where none can hold the model.
    """
    if job.models is not None and job.models.checkpoints:
        return job.folder / CHECKPOINT
    leaves = is_exportable(initial_shape(job.session, job.settings))
    return job.folder / (INITIAL if leaves else UPCYCLED)


def format_notes(
    settings: Promote | None, corpus: Corpus, models: ImportedModels | None
) -> list[str]:
    """In which format a trainer of the user's will get the upcycled model; empty without one."""
    if settings is None or not settings.upcycle:
        return []
    shape = settings.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
    if (models is not None and models.checkpoints) or is_exportable(shape):
        return ["`initial_model` will be a Hugging Face checkpoint."]
    return [
        "`initial_model` will be in our own format (model.json, docs/trainers.md): Mixtral cannot "
        "hold this model."
    ]


def is_exportable(model: ModelConfig) -> bool:
    """Whether a Hugging Face checkpoint can hold a model of ours."""
    from mixopt.models.families.export import check_exportable  # imports torch

    try:
        check_exportable(model)
    except StudyError:
        return False
    return True


def initial_shape(session: Session, settings: Promote) -> ModelConfig:
    """Shape of the upcycled model, of imported checkpoints in our words."""
    study, corpus, models = session.study, session.corpus, session.models
    if models is not None and models.checkpoints:
        return trained_shape(settings, plan_of(study, corpus, models).shape)
    return settings.model.of_text(corpus.vocab_size, corpus.end_of_text_id)


def initial_params(session: Session, settings: Promote) -> int:
    """Parameters of the upcycled model that one token uses."""
    models = session.models
    if models is not None and models.checkpoints:
        return plan_of(session.study, session.corpus, models).body_params[1]
    return initial_shape(session, settings).active_params()
