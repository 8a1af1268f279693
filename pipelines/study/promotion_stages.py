"""The trainings of a promotion: seed model, experts, upcycled model, each in a folder of its own.

An imported model of our own format takes the place of the seed's training or of an expert's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.core.errors import TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Outcome, TrialResult
from mixopt.io import files
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.training import Training, train
from mixopt.proxies.job import Job
from mixopt.study.results import Stage
from mixopt.workers.proxy_task import Work, finished

if TYPE_CHECKING:
    from mixopt.workers import driver

UPCYCLED = "upcycled"
KINDS = {SEED: "seed", UPCYCLED: "moe"}  # others are experts


@dataclass(frozen=True)
class TrainedStages:
    """What the trainings of a promotion came to.

    Attributes:
        results: by name, of those that were trained here, in order.
        seed: metrics of the dense seed model.
        before: metrics of the upcycled model before its training.
        receipt: of the upcycling.
        model: folder of the exported model.
    """

    results: Mapping[str, TrialResult]
    seed: Mapping[str, float]
    before: Mapping[str, float]
    receipt: Receipt
    model: Path

    @property
    def last(self) -> TrialResult:
        """Of the upcycled model."""
        return self.results[UPCYCLED]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """As a promotion records them."""
        return tuple(
            Stage(
                name=name,
                kind=KINDS.get(name, "expert"),
                tokens=result.cost.tokens,
                device_seconds=result.cost.device_seconds,
                metrics=result.metrics,
            )
            for name, result in self.results.items()
        )


def run_stages(job: PromotionRun) -> TrainedStages:
    """Train what is not trained yet, upcycle, and train the result.

    Raises:
        TrainingError: a stage failed for good; the ones before it are kept.
    """
    session, settings = job.session, job.settings
    imported = {} if job.models is None else job.models.folders
    weights = {name: folder / WEIGHTS for name, folder in imported.items()}
    results: dict[str, TrialResult] = {}
    if SEED not in imported:
        work = job.work(SEED, job.dense, session.corpus.natural, settings.seed_tokens, 0)
        results[SEED] = train_stages(session, "dense seed model", [work])[0]
        weights[SEED] = Path(work.folder) / WEIGHTS
    works = {}
    for number, domain in enumerate(job.experts, 1):
        if domain not in imported:
            alone = Mixture.exact({d: float(d == domain) for d in session.corpus.domains})
            works[domain] = job.work(
                *(f"expert {domain}", job.dense, alone, settings.expert_tokens, number),
                initial=weights[SEED],
            )
            weights[domain] = Path(works[domain].folder) / WEIGHTS
    trained = train_stages(session, "domain experts", list(works.values())) if works else []
    results |= {work.key: result for work, result in zip(works.values(), trained, strict=True)}

    record = _upcycle(job, weights)
    last = job.work(
        *(UPCYCLED, job.model, job.mixture, settings.tokens, len(job.experts) + 1),
        initial=job.folder / UPCYCLED / WEIGHTS,
    )
    last = dataclasses.replace(last, folder=str(job.folder / "moe"))
    results[UPCYCLED] = train_stages(session, "upcycled model", [last])[0]
    return TrainedStages(
        results=results,
        seed=record["seed"] if SEED in imported else results[SEED].metrics,
        before=record["metrics"],
        receipt=Receipt.from_json(record["receipt"]),
        model=_export(job, Path(last.folder)),
    )


def _upcycle(job: PromotionRun, weights: Mapping[str, Path]) -> dict[str, Any]:
    """Upcycle the dense models with these weights, `seed` and domain → file, on a worker."""
    from mixopt.workers import promotion_job  # imports Ray

    session, settings = job.session, job.settings
    session.connect()
    made_of = f"{len(job.experts)} experts" if job.experts else "the seed"
    session.display.say(f"upcycling {made_of}: {settings.upcycler}")
    return promotion_job.upcycle_on_cluster(
        promotion_job.Upcycling(
            method=settings.method,
            seed_model=str(weights[SEED]),
            expert_models={domain: str(weights[domain]) for domain in job.experts},
            dense=dataclasses.asdict(job.dense),
            model=dataclasses.asdict(job.model),
            recipe=dataclasses.asdict(session.recipe("promote")),
            corpus=str(session.study.corpus_path),
            folder=str(job.folder / UPCYCLED),
            seed=session.study.seed,
            verified=session.verified,
            tasks=session.tasks,
            weighed=session.weighed,
            score_seed=job.models is not None,
        ),
        session.resources,
        session.display.warn,
    )


class StageTraining(Training):
    """A stage's training; what has ended already comes from its completion marker.

    Args:
        session: of the study.
        work: of the stage.
    """

    def __init__(self, session: Session, work: Work) -> None:
        job = work.job
        assert isinstance(job, Job)  # stages are ours
        flops = session.flops(job.model, job.tokens)
        super().__init__(work, work.key, tokens=job.tokens, proxies=1, bars={work.key: flops})
        self.flops, self._display = flops, session.display
        ended = finished(work)
        self.outcome: Outcome | None = ended[0] if ended else None

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Keep the outcome."""
        (self.outcome,) = outcomes

    def failed(self, event: driver.Failed) -> None:
        """Say so.

        Raises:
            TrainingError: the driver does not try again.
        """
        self._display.warn(f"{self.label}: {event.failure}")
        if event.final:
            raise TrainingError(
                f"failed for good: {event.message}",
                where=f"promotion, {self.label}",
                hint="Remove the cause and run the same command again",
            )

    @property
    def result(self) -> TrialResult:
        """What the stage measured.

        Raises:
            TrainingError: it has no result, such as a training that diverged.
        """
        assert self.outcome is not None  # asked for once it has ended
        if self.outcome.result is None:
            raise TrainingError(
                f"{self.outcome.failure}: {self.outcome.message}",
                where=f"promotion, {self.label}",
                hint="Lower promote.recipe.learning_rate; what was trained before it is kept",
            )
        return self.outcome.result


def train_stages(session: Session, label: str, works: Sequence[Work]) -> list[TrialResult]:
    """Train `works` on the cluster, except those that have ended; the results of all."""
    for work in works:  # others may import a stage's model, whose tokenizer it must carry
        tokenizer = session.corpus.tokenizer_path.read_bytes()
        files.keep_bytes(Path(work.folder) / TOKENIZER, tokenizer)
    stages = [StageTraining(session, work) for work in works]
    todo = [stage for stage in stages if stage.outcome is None]
    if todo:
        session.connect()
    ended = {stage.label: stage.flops for stage in stages if stage.outcome is not None}
    total = sum(stage.flops for stage in stages)
    with session.display.phase(label, total, len(stages), ended):
        train(todo, session.resources, session.display)
    return [stage.result for stage in stages]


def _export(job: PromotionRun, trained: Path) -> Path:
    """The folder with what is needed to use the model: weights, shape, tokenizer."""
    model = job.folder / "model"
    for source in (trained / WEIGHTS, trained / SHAPE):
        files.write_bytes(model / source.name, source.read_bytes())
    files.write_bytes(model / TOKENIZER, job.session.corpus.tokenizer_path.read_bytes())
    return model
