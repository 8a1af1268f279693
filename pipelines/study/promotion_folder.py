"""The folder of a promotion; its name is a hash of all that the promoted model depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixopt.core.mixture import Mixture
from mixopt.pipelines.study.session import Session
from mixopt.study.data import TrainingData
from mixopt.study.promote import Promote
from mixopt.study.settings import Study, digest


def promotion_folder(session: Session, settings: Promote, mixture: Mixture) -> Path:
    """Where the promotion of `mixture` by these settings lies, or would lie.

    Raises:
        StudyError: a file of its trainer is not there.
    """
    if settings.trainer is not None:
        identity = full_run_identity(session.study, session.data, settings, mixture)
        return session.home / "promotion" / digest(identity)
    what: list[Any] = [settings.canonical(), mixture.as_dict(), session.corpus.hash]
    what.append(session.study.seed)
    if session.models is not None:
        what.append(session.models.identity(session.home))
        if session.models.checkpoints and settings.train:
            what.append("trained")
    return session.home / "promotion" / digest(what)


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
