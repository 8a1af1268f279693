"""The folder of a promotion; its name is a hash of all that the promoted model depends on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.mixture import Mixture
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.session import Session
from mixopt.study.data import TrainingData
from mixopt.study.hashes import digest
from mixopt.study.promote import Promote
from mixopt.study.settings import Study


def promotion_folder(session: Session, settings: Promote, mixture: Mixture) -> Path:
    """Where the promotion of `mixture` by these settings lies, or would lie.

    Raises:
        StudyError: a file of its trainer is not there.
    """
    if not settings.upcycles:
        identity = full_run_identity(session.study, session.data, settings, mixture)
        return session.home / "promotion" / digest(identity)
    asked = asked_of(session.study, session.corpus, settings, mixture, session.models)
    return asked_folder(session.study, asked)


def asked_folder(study: Study, asked: Mapping[str, Any]) -> Path:
    """Where the promotion by our upcycling lies that depends on `asked`."""
    return study.home / "promotion" / digest(list(asked.values()))


def asked_of(
    study: Study,
    data: TrainingData,
    settings: Promote,
    mixture: Mixture,
    models: ImportedModels | None,
) -> dict[str, Any]:
    """All that a promotion with our upcycling depends on, as JSON-able values.

    Raises:
        FileError: checksums of imported models cannot be kept.
        StudyError: a file of its trainer is not there.
    """
    asked: dict[str, Any] = {
        "promote": settings.canonical(),
        "mixture": mixture.as_dict(),
        "corpus": data.hash,
        "seed": study.seed,
    }
    if models is not None:
        asked["models"] = models.identity(study.home)
        if models.checkpoints and settings.trains_upcycled:
            asked["trained"] = "trained"
    if settings.trainer is not None:
        asked["trainer"] = trainer_identity(study, settings)
    as_kept: dict[str, Any] = json.loads(json.dumps(asked))
    return as_kept


def stages_name(session: Session, settings: Promote, mixture: Mixture) -> str:
    """Names all that the stages before a trainer of the user's depend on: not the trainer.

    Nor the full run's tokens, but for how much text they let evaluations read.
    """
    asked = asked_of(session.study, session.corpus, settings, mixture, session.models)
    recipe = dataclasses.asdict(session.evaluation_recipe().canonical())
    promote = {k: v for k, v in asked["promote"].items() if k not in ("tokens", "name")}
    others = {key: value for key, value in asked.items() if key not in ("promote", "trainer")}
    return digest([promote, others, recipe])


def trainer_identity(study: Study, settings: Promote) -> dict[str, Any]:
    """All that a training by the full run's own trainer depends on besides its job.

    Raises:
        StudyError: a file of it is not there.
    """
    assert settings.trainer is not None
    with study.naming("promote"):
        return settings.trainer.identity(study.path.parent)


def full_run_identity(
    study: Study, data: TrainingData, settings: Promote, mixture: Mixture
) -> list[Any]:
    """All that a full run by a trainer of the user's depends on, as JSON-able values.

    Raises:
        StudyError: a file of its trainer is not there.
    """
    trainer = trainer_identity(study, settings)
    return [trainer, settings.tokens, mixture.as_dict(), data.hash, study.seed]
