"""The folder of a promotion; its name is a hash of all that the promoted model depends on."""

from __future__ import annotations

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
    if settings.trainer is not None:
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
    """All that a promotion by our upcycling depends on, as JSON-able values.

    Raises:
        FileError: checksums of imported models cannot be kept.
    """
    asked: dict[str, Any] = {
        "promote": settings.canonical(),
        "mixture": mixture.as_dict(),
        "corpus": data.hash,
        "seed": study.seed,
    }
    if models is not None:
        asked["models"] = models.identity(study.home)
        if models.checkpoints and settings.train:
            asked["trained"] = "trained"
    as_kept: dict[str, Any] = json.loads(json.dumps(asked))
    return as_kept


def full_run_identity(
    study: Study, data: TrainingData, settings: Promote, mixture: Mixture
) -> list[Any]:
    """All that a full run by a trainer of the user's depends on, as JSON-able values.

    Raises:
        StudyError: a file of its trainer is not there.
    """
    assert settings.trainer is not None
    with study.naming("promote"):
        trainer = settings.trainer.identity(study.path.parent)
    return [trainer, settings.tokens, mixture.as_dict(), data.hash, study.seed]
