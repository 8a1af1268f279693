"""Promotion: a dense seed model, domain experts branched from it, upcycled and trained as one MoE.

    natural mixture ──► seed (dense) ──┬─► expert: law ───┐
                                       ├─► expert: code ──┼─► upcycle ──► train on the mixture
                                       └─► expert: web ───┘

Every stage is an idempotent piece of work with a folder of its own; the folder of a promotion
carries the hash of its settings, so a changed promotion begins anew beside the old one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt import __version__
from mixopt.core.errors import StudyError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Outcome, TrialResult
from mixopt.io import files, markers
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling.receipt import Receipt
from mixopt.pipelines.study.dense_models import dense_models
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.training import Training, train
from mixopt.proxies.job import Job
from mixopt.selection.results import Predicted
from mixopt.study.model import study_model
from mixopt.study.records import read_result
from mixopt.study.results import Promotion, Stage, Verdict
from mixopt.study.sections import Promote
from mixopt.study.settings import digest
from mixopt.workers.proxy_task import Work, finished

if TYPE_CHECKING:
    from mixopt.workers import driver

RESULT = "result.json"


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
    """

    session: Session
    settings: Promote
    mixture: Mixture
    method: str
    folder: Path
    surrogate: str = ""

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
        """The domains that get an expert: those of the largest weight in the mixture."""
        order = sorted(self.mixture.domains, key=lambda d: -self.mixture[d])
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


def promote(session: Session, verdict: Verdict) -> Promotion:
    """Run the promotion that `verdict` asks for, or what is left of it.

    A promotion that ended keeps its result, with what was predicted then of a proxy: a search that
    goes on afterwards does not make a second one of it.

    Raises:
        StudyError: the study asks for none.
        TrainingError: a stage failed for good; the ones before it are kept.
    """
    settings = session.study.promote
    if settings is None:
        raise StudyError(
            "the study asks for no promotion",
            where=str(session.study.path),
            hint="Add `promote` to the study file",
        )
    mixture = verdict.mixture
    folder = _folder(session, settings, mixture)
    job = PromotionRun(session, settings, mixture, verdict.promoted, folder, verdict.surrogate)
    ended = read_result(folder)
    if ended is None or not _is_whole(folder.parent / ended.model, ended.files):
        ended = _stages(job)
        files.write_json(folder / RESULT, ended.to_json())
    # another round of search may find the same mixture as another candidate
    result = dataclasses.replace(ended, mixture_name=job.method)
    files.write_json(session.home / "promotion" / RESULT, result.to_json())
    return result


def _is_whole(model: Path, kept: Mapping[str, Any]) -> bool:
    """Whether the promoted model lies there as it was exported; `kept` is its files' checksums."""
    return WEIGHTS in kept and markers.whole(model, kept)


def _folder(session: Session, settings: Promote, mixture: Mixture) -> Path:
    """The promotion's folder; its name is a hash of all that the promoted model depends on."""
    what = [settings.canonical(), mixture.as_dict(), session.corpus.hash]
    return session.home / "promotion" / digest([*what, session.study.seed])


def _stages(job: PromotionRun) -> Promotion:
    from mixopt.workers import promotion_job

    session, settings = job.session, job.settings
    shape, natural = job.dense, session.corpus.natural
    seed_work = job.work("seed", shape, natural, settings.seed_tokens, 0)
    stages = {"seed": _train(session, "dense seed model", [seed_work])[0]}
    start = Path(seed_work.folder) / "model.safetensors"
    works = []
    for number, domain in enumerate(job.experts, 1):
        alone = Mixture.exact({d: float(d == domain) for d in session.corpus.domains})
        works.append(
            job.work(f"expert {domain}", shape, alone, settings.expert_tokens, number, start)
        )
    trained = _train(session, "domain experts", works) if works else []
    stages |= {work.key: result for work, result in zip(works, trained, strict=True)}

    session.connect()
    made_of = f"{len(works)} experts" if works else "the seed"
    session.display.say(f"upcycling {made_of}: {settings.upcycler}")
    upcycled = promotion_job.upcycle_on_cluster(
        promotion_job.Upcycling(
            method=settings.method,
            seed_model=str(start),
            expert_models={
                domain: str(Path(work.folder) / "model.safetensors")
                for domain, work in zip(job.experts, works, strict=True)
            },
            dense=dataclasses.asdict(shape),
            model=dataclasses.asdict(job.model),
            recipe=dataclasses.asdict(session.recipe("promote")),
            corpus=str(session.study.corpus_path),
            folder=str(job.folder / "upcycled"),
            seed=session.study.seed,
            verified=session.verified,
            tasks=session.tasks,
            weighed=session.weighed,
        ),
        session.resources,
        session.display.warn,
    )
    last = job.work(
        "upcycled",
        job.model,
        job.mixture,
        settings.tokens,
        len(works) + 1,
        job.folder / "upcycled" / "model.safetensors",
    )
    last = dataclasses.replace(last, folder=str(job.folder / "moe"))
    stages["upcycled"] = _train(session, "upcycled model", [last])[0]
    return _result(job, stages, upcycled, Path(last.folder))


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


def _train(session: Session, label: str, works: Sequence[Work]) -> list[TrialResult]:
    """Train `works` on the cluster, except those that have ended; the results of all."""
    stages = [StageTraining(session, work) for work in works]
    todo = [stage for stage in stages if stage.outcome is None]
    if todo:
        session.connect()
    ended = {stage.label: stage.flops for stage in stages if stage.outcome is not None}
    total = sum(stage.flops for stage in stages)
    with session.display.phase(label, total, len(stages), ended):
        train(todo, session.resources, session.display)
    return [stage.result for stage in stages]


def _result(
    job: PromotionRun, stages: Mapping[str, TrialResult], upcycled: Mapping[str, Any], folder: Path
) -> Promotion:
    last, proxy = stages["upcycled"], job.session.fidelity
    model = _export(job, folder)
    return Promotion(
        id=job.folder.name,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        mixopt=__version__,
        corpus_hash=job.session.corpus.hash,
        sequence_length=job.settings.recipe.sequence_length,
        method=job.settings.upcycler,
        mixture_name=job.method,
        mixture=job.mixture,
        tokens=sum(result.cost.tokens for result in stages.values()),
        device_seconds=sum(result.cost.device_seconds for result in stages.values()),
        stages=tuple(
            Stage(
                name=name,
                kind={"seed": "seed", "upcycled": "moe"}.get(name, "expert"),
                tokens=result.cost.tokens,
                device_seconds=result.cost.device_seconds,
                metrics=result.metrics,
            )
            for name, result in stages.items()
        ),
        seed=stages["seed"].metrics,
        before=upcycled["metrics"],
        after=last.metrics,
        predicted=predicted(job),
        predicted_of=proxy,
        loads={domain: tuple(load) for domain, load in last.loads.items()},
        entropies=last.entropies,
        dropped=last.dropped,
        expert_names=job.experts,
        receipt=Receipt.from_json(upcycled["receipt"]),
        curve=tuple(last.curve),
        files=markers.described(model),
        model=str(model.relative_to(job.folder.parent)),  # a study's folder may move
        model_params=job.model.total_params(),
        active_params=job.model.active_params(),
    )


def _export(job: PromotionRun, trained: Path) -> Path:
    """The folder with what is needed to use the model: weights, shape, tokenizer."""
    model = job.folder / "model"
    for source in (trained / WEIGHTS, trained / SHAPE):
        files.write_bytes(model / source.name, source.read_bytes())
    files.write_bytes(model / TOKENIZER, job.session.corpus.tokenizer_path.read_bytes())
    return model


def predicted(job: PromotionRun) -> dict[str, Predicted]:
    """What the verdict's surrogate predicts of a proxy on the mixture, per domain and task.

    At the proxies' size and tokens: not a prediction of the promoted run, which is another model at
    another budget. That needs proxies of several sizes.

    Returns:
        By metric, the prediction of one run with a fresh seed; `std` is for the search's seed.
    """
    session = job.session
    metrics = (
        *(f"bpb/{domain}" for domain in session.corpus.validation_domains),
        *(f"task/{name}" for name in session.tasks),
    )
    trials = session.ledger.trials()
    model = study_model(session.study, session.fidelity, trials)
    weighed = session.objective.metrics
    found: dict[str, tuple[float, float]] = {}
    for part in (weighed, tuple(m for m in metrics if m not in weighed)):
        if part:
            prediction = model.fitted(job.surrogate, part).predict(job.mixture.array[None])
            pairs = zip(prediction.mean[0].tolist(), prediction.std[0].tolist(), strict=True)
            found |= dict(zip(prediction.metrics, pairs, strict=True))
    intervals = {
        metric: model.forecast(trials, job.mixture, pair, Objective({metric: 1.0})).within(1)
        for metric, pair in found.items()
    }
    return {metric: Predicted(*pair, *intervals[metric]) for metric, pair in found.items()}
