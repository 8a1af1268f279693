"""The trainings that a study asks for, step by step, and how fast this machine is at them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixopt.core.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study.cohorts import sizes
from mixopt.pipelines.study.dense_models import dense_models
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.plan_trials import LARGER, ROUNDS, SELECTION, larger_count, trial_counts
from mixopt.pipelines.study.session import study_resources
from mixopt.study.settings import Study

PROBE_STEPS = 24


@dataclass(frozen=True)
class Step:
    """A step of the study: `runs` trainings of `tokens` tokens each.

    Attributes:
        name: what it is called.
        runs: how many trainings.
        tokens: training tokens of each.
        model: their shape.
        recipe: how they are trained.
        at_once: how many are handed out together; the next ones wait for all of them.
        proxies: whether they may train in cohorts.
        command: the one that trains them, as `mixopt run` does too.
    """

    name: str
    runs: int
    tokens: int
    model: ModelConfig
    recipe: Recipe
    at_once: int
    proxies: bool = False
    command: Literal["search", "select", "promote"] = "promote"

    def cohorts(self, room: Room) -> list[int]:
        """Sizes of the cohorts of those that are handed out together, largest first."""
        return room.cohorts(self.at_once) if self.proxies else [1] * self.at_once

    def device_seconds(self, speed: float) -> float:
        """Time that devices train, at `speed` tokens per second of a cohort."""
        return self.runs * self.tokens / speed

    def wall_seconds(self, room: Room, speed: float) -> float:
        """Time until the last training ends: a wave lasts as long as its largest cohort."""
        waves = self.cohorts(room)[:: room.slots]
        rounds = self.runs // self.at_once
        return rounds * sum(waves) * self.tokens / speed

    @property
    def flops(self) -> float:
        """Training FLOPs of the step."""
        per_token = self.model.flops_per_token(self.recipe.sequence_length)
        return TRAINING_PER_FORWARD * per_token * self.tokens * self.runs


@dataclass(frozen=True)
class Room:
    """Where a plan's trainings run.

    Attributes:
        slots: trainings at once.
        most: largest cohort.
        busy: whether cohorts are so small that no slot is idle.
    """

    slots: int
    most: int = 1
    busy: bool = True

    def cohorts(self, trials: int) -> list[int]:
        """Sizes of the cohorts of so many trials."""
        return sizes(trials, self.most, self.slots if self.busy else 1)


def steps(study: Study, corpus: Corpus, models: ImportedModels | None = None) -> list[Step]:
    """The study's steps with their trainings, as the study file asks for them.

    Args:
        study: whose steps.
        corpus: of the study.
        models: existing models in the place of trainings.
    """
    proxy, model = study.proxy, study.proxy_model(corpus)
    plan = [
        Step(
            *(name, runs, proxy.tokens, model, proxy.recipe),
            at_once=study.search.batch if name == ROUNDS else runs,
            proxies=True,
            command="select" if name == SELECTION else "search",
        )
        for name, runs in trial_counts(study, corpus).items()
    ]
    if (larger := study.larger_fidelity(corpus)) is not None:
        runs, at_size = larger_count(study), study.larger_model(corpus)
        plan.append(
            Step(LARGER, runs, larger.tokens, at_size, proxy.recipe, runs, command="select")
        )
    return [*plan, *promotion_steps(study, corpus, models)]


def promotion_steps(study: Study, corpus: Corpus, models: ImportedModels | None) -> list[Step]:
    """The trainings of the study's promotion; none of them where imported models take its place."""
    promote = study.upcycling
    if promote is None or (models is not None and models.checkpoints):
        return []
    full = dataclasses.replace(promote.model, vocab_size=corpus.vocab_size)
    dense, recipe = dense_models(promote, full, corpus.domains), promote.recipe
    plan = []
    if models is None:
        plan.append(Step("dense seed model", 1, promote.seed_tokens, dense.shape, recipe, 1))
    if experts := len(dense.domains) - (0 if models is None else len(models.experts)):
        tokens = promote.expert_tokens
        plan.append(Step("domain experts", experts, tokens, dense.shape, recipe, experts))
    return [*plan, Step("upcycled model", 1, promote.tokens, full, recipe, 1)]


def planned_flops(
    study: Study, corpus: Corpus, command: str, models: ImportedModels | None = None
) -> float:
    """Training FLOPs of all that `mixopt search`, `select`, `promote` or `run` trains."""
    return sum(s.flops for s in steps(study, corpus, models) if command in ("run", s.command))


def planned_room(plan: Sequence[Step], study: Study, slots: int) -> Room:
    """How this machine would pack the trials of `plan`; `cohort: auto` is measured here."""
    if study.ray.cohort != "auto":
        return Room(slots, study.ray.cohort, busy=False)
    trials = [step for step in plan if step.proxies]
    if all(step.at_once <= slots for step in trials):
        return Room(slots)
    import torch

    from mixopt.proxies.cohorts import choose_cohort
    from mixopt.proxies.precision import choose_precision

    model, recipe, resources = trials[0].model, trials[0].recipe, study_resources(study)
    device, threads = torch.device(resources.device), torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    precision = choose_precision(model, recipe, 1, device)
    resolved = dataclasses.replace(recipe, precision="bf16" if precision == "bf16" else "fp32")
    most = choose_cohort(model, resolved, device, resources.gpus)
    torch.set_num_threads(threads)
    return Room(slots, most)


def measured_speed(step: Step, cohort: int, study: Study, corpus: Corpus) -> float:
    """Training tokens per second of `cohort` such trainings as one, by running a little here."""
    from mixopt.proxies.job import Job
    from mixopt.proxies.training import Progress, train

    recipe = dataclasses.replace(step.recipe, evaluations=1, evaluation_tokens=1, curve_tokens=1)
    job = Job(
        model=step.model,
        recipe=recipe,
        corpus=str(study.corpus_path),
        mixtures=(corpus.natural,) * cohort,
        seeds=tuple(range(cohort)),
        tokens=PROBE_STEPS * recipe.tokens_per_step,
    )
    seen: list[float] = []

    def report(progress: Progress) -> None:
        seen.append(progress.tokens_per_second)

    resources = study_resources(study)
    with tempfile.TemporaryDirectory() as folder:
        train(job, Path(folder), report, threads=resources.threads, device=resources.device)
    return seen[-1]
