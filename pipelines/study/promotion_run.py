"""A promotion that is decided: what it depends on, and the trainings that it is made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mixopt.core.mixture import Mixture
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study.dense_models import dense_models, first
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.session import Session
from mixopt.proxies.job import Job
from mixopt.study.sections import Promote
from mixopt.workers.proxy_task import Work


@dataclass(frozen=True)
class PromotionRun:
    """A promotion that is decided: the mixture, the settings, and where it happens.

    Attributes:
        session: the open study.
        settings: the study file's `promote`.
        mixture: what the upcycled model is trained on.
        method: the name of the mixture's candidate: found, natural, …
        folder: holds a folder per stage.
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
    def model(self) -> ModelConfig:
        """Shape of the upcycled model."""
        size = self.session.corpus.vocab_size
        return dataclasses.replace(self.settings.model, vocab_size=size)

    @property
    def dense(self) -> ModelConfig:
        """Shape of the dense models that it is upcycled from."""
        return dense_models(self.settings, self.model, self.mixture.domains).shape

    @property
    def experts(self) -> tuple[str, ...]:
        """The domains that get an expert: imported ones, then those of the largest weight."""
        imported = () if self.models is None else tuple(self.models.experts)
        order = first(imported, sorted(self.mixture.domains, key=lambda d: -self.mixture[d]))
        return dense_models(self.settings, self.model, order).domains

    def work(
        self,
        name: str,
        model: ModelConfig,
        mixture: Mixture,
        tokens: int,
        seed: int,
        initial: Path | None = None,
    ) -> Work:
        """A training of this promotion."""
        folder = self.folder / name.replace(" ", "-")
        job = Job(
            model=model,
            recipe=self.session.recipe("promote"),
            corpus=str(self.session.study.corpus_path),
            mixtures=(mixture,),
            seeds=(self.session.study.seed + seed,),
            tokens=tokens,
            initial=None if initial is None else str(initial),
            identity=self.folder.name,
            tasks=self.session.tasks,
            weighed=self.session.weighed,
        )
        return Work(
            name,
            job,
            str(folder),
            self.folder.name,
            keep_weights=True,
            verified=self.session.verified,
        )
