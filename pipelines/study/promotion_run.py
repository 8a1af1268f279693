"""A promotion that is decided: the mixture, the settings, and where it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixopt.core.mixture import Mixture
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.promotion_folder import stages_name
from mixopt.pipelines.study.promotion_stages import Stages
from mixopt.pipelines.study.session import Session
from mixopt.study.promote import Promote


@dataclass(frozen=True)
class PromotionRun:
    """A promotion that is decided: the mixture, the settings, and where it happens.

    Attributes:
        session: the open study.
        settings: the study file's `promote`.
        mixture: what the full run is trained on.
        method: the name of the mixture's candidate: found, natural, …
        folder: holds a folder per training.
        surrogate: registry name of the verdict's; empty where it does not say.
        models: existing models in the place of trainings; None without any.
    """

    session: Session
    settings: Promote
    mixture: Mixture
    method: str
    folder: Path
    surrogate: str = ""
    models: ImportedModels | None = None

    @property
    def stages_name(self) -> str:
        """What the stages depend on that come before a trainer of the user's, as a hash."""
        return stages_name(self.session, self.settings, self.mixture)

    def stages(self) -> Stages:
        """The trainings that our upcycling consists of, and ends with unless a trainer does."""
        session, models = self.session, self.models
        imported = {} if models is None else models.folders
        return Stages(
            settings=self.settings,
            mixture=self.mixture,
            folder=self.folder,
            corpus=session.corpus,
            recipe=session.recipe("promote"),
            seed=session.study.seed,
            tasks=session.tasks,
            weighed=session.weighed,
            verified=session.verified,
            imported=imported,
            name=self.stages_name if self.settings.upcycle else "",
        )
