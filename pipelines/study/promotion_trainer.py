"""Our upcycling by the trainers' contract: what `promote.trainer` of a study file may name.

    promote:
      trainer:
        command: "{python} -m mixopt.pipelines.study.promotion_trainer {job}"
        settings: {model: {…}, recipe: {…}, seed_tokens: 600k, expert_tokens: 200k}
      tokens: 600k

It trains, upcycles and trains as a study does by itself, to the last digit, in one process.
`settings` of the job are the keys of `promote` that are for our upcycling, with these besides:

    tasks       name → file of prepared questions
    weighed     domains and tasks that are evaluated on more text (default: of the job's metrics)

Progress is of the last training; what comes before it is told by notes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Outcome, TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import yaml_lines
from mixopt.pipelines.study.promotion_stages import UPCYCLED, Stages, TrainedStages, run_stages
from mixopt.proxies.trainer import split, weighed_by
from mixopt.study.promote import OWN, Promote
from mixopt.trainers.call import run
from mixopt.trainers.job import TrainingJob, TrainingResult
from mixopt.workers.promotion_job import Upcycling, upcycle
from mixopt.workers.proxy_task import Work, perform

WHERE = "settings of mixopt.pipelines.study.promotion_trainer"
FOLDER = "stages"  # in the job's folder


def train(job: TrainingJob, report: Callable[..., None]) -> TrainingResult:
    """Train what is not trained yet in the job's folder, upcycle, and train the result.

    Raises:
        TrainingError: the job has no corpus, is no full run, or a stage failed.
        CorpusError: the corpus cannot be used.
        StudyError: a setting is unknown or out of range.
    """
    plan = stages_of(job)
    try:
        done = run_stages(plan, Here(job, report))
    except StageFailed as error:
        return TrainingResult(failure=error.failure, message=error.what)
    return _result(job, plan, done)


def stages_of(job: TrainingJob) -> Stages:
    """The stages of the promotion that `job` asks for.

    Raises:
        TrainingError: it has no corpus, or is no full run.
        CorpusError: the corpus is absent or broken.
        StudyError: a setting is unknown or out of range.
    """
    if job.corpus is None:
        raise TrainingError("our upcycling trains on a corpus, and the study has none", where=WHERE)
    if job.role != "promote":
        raise TrainingError(
            f"the role is {job.role!r}; this one is for full runs",
            where=WHERE,
            hint="Name it in promote.trainer; mixopt.proxies.trainer trains proxies",
        )
    keys = dict(job.settings)
    tasks, weighed = dict(keys.pop("tasks", None) or {}), keys.pop("weighed", None)
    if taken := [key for key in OWN if key in keys]:
        raise TrainingError(f"{taken[0]}: is said by the job", where=WHERE, hint="Leave it out")
    settings = yaml_lines.Values({**keys, "tokens": job.tokens}, WHERE).validate(Promote)
    corpus = Corpus.open(job.corpus)
    counted = tuple(weighed) if weighed is not None else weighed_by(job, corpus, tasks)
    sets = len(corpus.validation_domains) + len(tasks)
    recipe = settings.recipe.affordable(settings.tokens_each, sets, len(counted))
    return Stages(
        settings=settings,
        mixture=Mixture.exact(job.mixture),
        folder=Path(job.folder) / FOLDER / job.identity,
        corpus=corpus,
        recipe=split(recipe, job.memory_failures),
        seed=job.seed,
        tasks=tasks,
        weighed=counted,
    )


class StageFailed(TrainingError):
    """A stage has no result.

    Attributes:
        failure: its class, as `result.json` names it.
    """

    def __init__(self, work: Work, failure: str, message: str) -> None:
        super().__init__(f"{work.key}: {message}")
        self.failure = failure


@dataclass
class Here:
    """Runs a promotion's parts in this process, one after the other.

    Attributes:
        job: of the full run.
        report: takes its progress.
    """

    job: TrainingJob
    report: Callable[..., None]

    @property
    def device(self) -> str:
        """Where it trains."""
        return "cuda" if self.job.gpus else "cpu"

    def train(self, label: str, works: Sequence[Work]) -> list[TrialResult]:
        """Train `works` in turn; those that have ended are read.

        Raises:
            StageFailed: one has no result.
        """
        return [self._train(work) for work in works]

    def _train(self, work: Work) -> TrialResult:
        job = self.job
        for event in perform(work, job.attempt, 1, job.threads, self.device):
            match event["kind"]:
                case "progress":
                    self._progress(work, event)
                case "failed":
                    raise StageFailed(work, event["failure"], event["message"])
                case "done":
                    outcome = Outcome.from_json(event["outcomes"][0])
                    if outcome.result is None:
                        raise StageFailed(work, str(outcome.failure), outcome.message)
                    return outcome.result
        raise AssertionError("perform ends with done or failed")

    def _progress(self, work: Work, event: Mapping[str, Any]) -> None:
        tokens = int(event["tokens"])
        if work.key == UPCYCLED:
            self.report(tokens, **({"note": event["note"]} if event["note"] else {}))
        else:
            self.report(0, stage=work.key, stage_tokens=tokens)

    def upcycle(self, ask: Upcycling) -> dict[str, Any]:
        """Upcycle here."""
        self.report(0, stage="upcycling")
        return upcycle(ask, self.job.threads, self.device)


def _result(job: TrainingJob, plan: Stages, done: TrainedStages) -> TrainingResult:
    last, before = done.last, done.upcycled
    return TrainingResult(
        metrics=last.metrics,
        mixture=plan.mixture.as_dict(),
        tokens=last.cost.tokens,
        seed=job.seed,
        batch_tokens=plan.recipe.tokens_per_step,
        checkpoint=str(done.model.relative_to(job.folder)),
        flops=sum(result.cost.flops for result in (*before.results.values(), last)),
        device_seconds=sum(r.cost.device_seconds for r in (*before.results.values(), last)),
        environment=last.environment,
        loads={domain: tuple(shares) for domain, shares in last.loads.items()},
        entropies=last.entropies,
        dropped=last.dropped,
    )


if __name__ == "__main__":
    run(train, Path(sys.argv[1]))
