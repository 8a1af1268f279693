"""The trainings of our upcycling: seed model, experts, upcycled model, each in a folder of its own.

    natural mixture ──► seed (dense) ──┬─► expert: law ───┐
                                       ├─► expert: code ──┼─► upcycle ──► train on the mixture
                                       └─► expert: web ───┘

An imported model of our own format takes the place of the seed's training or of an expert's. Where
they run is a `Machine`: the cluster (`stage_trainings`), or this process (`promotion_trainer`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.dense_models import dense_models, first
from mixopt.proxies.job import Job
from mixopt.study.promote import Promote
from mixopt.study.results import Stage
from mixopt.workers.full_job import FullJob
from mixopt.workers.promotion_job import Upcycling
from mixopt.workers.proxy_task import Work

UPCYCLED = "upcycled"
FULL_RUN = "moe"  # folder of the training that a promotion ends with
MOE = (UPCYCLED, "moe")  # name and kind of that training


class Machine(Protocol):
    """What runs the parts of a promotion, each once: what has ended already is not run again."""

    def train(self, label: str, works: Sequence[Work]) -> list[TrialResult]:
        """The results of all trainings, which `label` names together.

        Raises:
            TrainingError: one failed for good.
        """

    def upcycle(self, ask: Upcycling) -> dict[str, Any]:
        """What `mixopt.workers.promotion_job.upcycle` returns.

        Raises:
            MixoptError: it fails.
        """


@dataclass(frozen=True)
class Stages:
    """What a promotion by our upcycling is made of.

    Attributes:
        settings: the study file's `promote`.
        mixture: what the upcycled model is trained on.
        folder: holds a folder per stage.
        corpus: of the study.
        recipe: of all trainings, its precision resolved and its evaluations cut.
        seed: of the study.
        tasks: name → file of its prepared questions.
        weighed: names of the domains and tasks that the objective weighs.
        verified: folder that remembers where the corpus was compared; empty if it is not to be.
        imported: `seed` and domains → folder of an existing model of our own format.
        name: what checkpoints and markers carry to count; empty takes that of the folder.
    """

    settings: Promote
    mixture: Mixture
    folder: Path
    corpus: Corpus
    recipe: Recipe
    seed: int
    tasks: Mapping[str, str] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()
    verified: str = ""
    imported: Mapping[str, Path] = field(default_factory=dict)
    name: str = ""

    @property
    def identity(self) -> str:
        """What checkpoints and markers of its trainings carry to count."""
        return self.name or self.folder.name

    @property
    def model(self) -> ModelConfig:
        """Shape of the upcycled model."""
        return self.settings.model.of_text(self.corpus.vocab_size, self.corpus.end_of_text_id)

    @property
    def dense(self) -> ModelConfig:
        """Shape of the dense models that it is upcycled from."""
        return dense_models(self.settings, self.model, self.mixture.domains).shape

    @property
    def experts(self) -> tuple[str, ...]:
        """The domains that get an expert: imported ones, then those of the largest weight."""
        imported = tuple(name for name in self.imported if name != SEED)
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
            recipe=self.recipe,
            corpus=str(self.corpus.path),
            mixtures=(mixture,),
            seeds=(self.seed + seed,),
            tokens=tokens,
            initial=None if initial is None else str(initial),
            identity=self.identity,
            tasks=dict(self.tasks),
            weighed=self.weighed,
        )
        asked = self.settings.resources
        return Work(
            *(name, FullJob(job, asked.processes, asked.recompute)),
            *(str(folder), self.identity),
            keep_weights=True,
            verified=self.verified,
        )


@dataclass(frozen=True)
class UpcycledStages:
    """What the trainings before the upcycling came to, and the upcycling.

    Attributes:
        results: by name, of those that were trained here, in order.
        seed: metrics of the dense seed model.
        before: metrics of the upcycled model before its training.
        receipt: of the upcycling.
    """

    results: Mapping[str, TrialResult]
    seed: Mapping[str, float]
    before: Mapping[str, float]
    receipt: Receipt

    @property
    def stages(self) -> tuple[Stage, ...]:
        """As a promotion records them."""
        return tuple(
            Stage(
                name=name,
                kind="seed" if name == SEED else "expert",
                tokens=result.cost.tokens,
                device_seconds=result.cost.device_seconds,
                metrics=result.metrics,
            )
            for name, result in self.results.items()
        )


@dataclass(frozen=True)
class TrainedStages:
    """What the trainings of a promotion came to, that of the upcycled model as well.

    Attributes:
        upcycled: what those before it came to.
        last: its own result.
        model: folder of the exported model.
    """

    upcycled: UpcycledStages
    last: TrialResult
    model: Path


def upcycle_stages(plan: Stages, machine: Machine) -> UpcycledStages:
    """Train the dense models that are not trained yet, and upcycle them.

    Raises:
        TrainingError: a stage failed for good; the ones before it are kept.
    """
    settings, imported = plan.settings, plan.imported
    weights = {name: folder / WEIGHTS for name, folder in imported.items()}
    results: dict[str, TrialResult] = {}
    if SEED not in imported:
        work = plan.work(SEED, plan.dense, plan.corpus.natural, settings.seed_tokens, 0)
        results[SEED] = _train(plan, machine, "dense seed model", [work])[0]
        weights[SEED] = Path(work.folder) / WEIGHTS
    works = {}
    for number, domain in enumerate(plan.experts, 1):
        if domain not in imported:
            alone = Mixture.exact({d: float(d == domain) for d in plan.corpus.domains})
            works[domain] = plan.work(
                *(f"expert {domain}", plan.dense, alone, settings.expert_tokens, number),
                initial=weights[SEED],
            )
            weights[domain] = Path(works[domain].folder) / WEIGHTS
    trained = _train(plan, machine, "domain experts", list(works.values())) if works else []
    results |= {work.key: result for work, result in zip(works.values(), trained, strict=True)}
    record = machine.upcycle(_upcycling(plan, weights))
    return UpcycledStages(
        results=results,
        seed=record["seed"] if SEED in imported else results[SEED].metrics,
        before=record["metrics"],
        receipt=Receipt.from_json(record["receipt"]),
    )


def run_stages(plan: Stages, machine: Machine) -> TrainedStages:
    """Train what is not trained yet, upcycle, and train the result.

    Raises:
        TrainingError: a stage failed for good; the ones before it are kept.
    """
    upcycled = upcycle_stages(plan, machine)
    last = plan.work(
        *(UPCYCLED, plan.model, plan.mixture, plan.settings.tokens, len(plan.experts) + 1),
        initial=plan.folder / UPCYCLED / WEIGHTS,
    )
    assert isinstance(last.job, FullJob)
    in_phases = dataclasses.replace(last.job, phases=plan.settings.phases)
    last = dataclasses.replace(last, job=in_phases, folder=str(plan.folder / FULL_RUN))
    result = _train(plan, machine, "upcycled model", [last])[0]
    return TrainedStages(upcycled, result, _export(plan, Path(last.folder)))


def _train(plan: Stages, machine: Machine, label: str, works: Sequence[Work]) -> list[TrialResult]:
    for work in works:  # others may import a stage's model, whose tokenizer it must carry
        tokenizer = plan.corpus.tokenizer_path.read_bytes()
        files.keep_bytes(Path(work.folder) / TOKENIZER, tokenizer)
    return machine.train(label, works)


def _upcycling(plan: Stages, weights: Mapping[str, Path]) -> Upcycling:
    """The conversion of the dense models with these weights, `seed` and domain → file."""
    return Upcycling(
        method=plan.settings.method,
        seed_model=str(weights[SEED]),
        expert_models={domain: str(weights[domain]) for domain in plan.experts},
        dense=plan.dense.to_json(),
        model=plan.model.to_json(),
        recipe=dataclasses.asdict(plan.recipe),
        corpus=str(plan.corpus.path),
        folder=str(plan.folder / UPCYCLED),
        seed=plan.seed,
        verified=plan.verified,
        tasks=plan.tasks,
        weighed=plan.weighed,
        score_seed=bool(plan.imported),
    )


def _export(plan: Stages, trained: Path) -> Path:
    """The folder with what is needed to use the model: weights, shape, tokenizer."""
    model = plan.folder / "model"
    for source in (trained / WEIGHTS, trained / SHAPE):
        files.write_bytes(model / source.name, source.read_bytes())
    files.write_bytes(model / TOKENIZER, plan.corpus.tokenizer_path.read_bytes())
    return model
