"""The trainings that a study asks for, step by step, and how fast this machine is at them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixopt.core.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.memory import full_run_memory
from mixopt.pipelines.study.checkpoint_training import trained_shape
from mixopt.pipelines.study.cohorts import sizes
from mixopt.pipelines.study.dense_models import dense_models
from mixopt.pipelines.study.imported_checks import plan_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.plan_trials import LARGER, ROUNDS, SELECTION, larger_count, trial_counts
from mixopt.pipelines.study.session import study_resources
from mixopt.proxies.job import Job
from mixopt.study.promote import Promote
from mixopt.study.settings import Study
from mixopt.study.trainings import larger_fidelity, larger_model, proxy_model
from mixopt.workers.cluster import Resources

if TYPE_CHECKING:
    from mixopt.proxies.training import Progress

PROBE_STEPS = 24
PROBE_FLOPS = 2e12  # of a full run that is tried: about a minute of a slow core
PROBE_BYTES = 2e9
FEWEST_STEPS = 3


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
        processes: that train each of them together.
        recompute: whether activations are computed again for gradients.
        command: the one that trains them, as `mixopt run` does too.
    """

    name: str
    runs: int
    tokens: int
    model: ModelConfig
    recipe: Recipe
    at_once: int
    proxies: bool = False
    processes: int = 1
    recompute: bool = False
    command: Literal["search", "select", "promote"] = "promote"

    def cohorts(self, room: Room) -> list[int]:
        """Sizes of the cohorts of those that are handed out together, largest first."""
        return room.cohorts(self.at_once) if self.proxies else [1] * self.at_once

    def device_seconds(self, speed: float) -> float:
        """Time that devices train, at `speed` tokens per second of a cohort."""
        return self.runs * self.tokens / speed

    def wall_seconds(self, room: Room, speed: float) -> float:
        """Time until the last training ends: a wave lasts as long as its largest cohort.

        Several processes are taken to share the work without loss.
        """
        waves = self.cohorts(room)[:: max(1, room.slots // self.processes)]
        rounds = self.runs // self.at_once
        return rounds * sum(waves) * self.tokens / (speed * self.processes)

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
    proxy, model = study.proxy, proxy_model(study, corpus)
    plan = [
        Step(
            *(name, runs, proxy.tokens, model, proxy.recipe),
            at_once=study.search.batch if name == ROUNDS else runs,
            proxies=True,
            command="select" if name == SELECTION else "search",
        )
        for name, runs in trial_counts(study, corpus).items()
    ]
    if (larger := larger_fidelity(study, corpus)) is not None:
        runs, at_size = larger_count(study), larger_model(study, corpus)
        plan.append(
            Step(LARGER, runs, larger.tokens, at_size, proxy.recipe, runs, command="select")
        )
    return [*plan, *promotion_steps(study, corpus, models)]


def promotion_steps(study: Study, corpus: Corpus, models: ImportedModels | None) -> list[Step]:
    """The trainings of the study's promotion, without those whose place imported models take."""
    promote = study.upcycling
    if promote is None:
        return []
    if models is not None and models.checkpoints:
        return checkpoint_steps(study, corpus, models) if promote.trains_upcycled else []
    full = promote.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
    dense, recipe = dense_models(promote, full, corpus.domains), promote.recipe
    plan = []
    if models is None:
        plan.append(Step("dense seed model", 1, promote.seed_tokens, dense.shape, recipe, 1))
    if experts := len(dense.domains) - (0 if models is None else len(models.experts)):
        tokens = promote.expert_tokens
        plan.append(Step("domain experts", experts, tokens, dense.shape, recipe, experts))
    if promote.trainer is None:
        plan.append(Step("upcycled model", 1, promote.tokens, full, recipe, 1))
    return [_full_run(step, promote) for step in plan]


def checkpoint_steps(study: Study, corpus: Corpus, models: ImportedModels) -> list[Step]:
    """The training of the study's imported checkpoints, upcycled."""
    promote = study.upcycling
    assert promote is not None
    shape = trained_shape(promote, plan_of(study, corpus, models).shape)
    return [_full_run(Step("upcycled model", 1, promote.tokens, shape, promote.recipe, 1), promote)]


def _full_run(step: Step, promote: Promote) -> Step:
    asked = promote.resources
    return dataclasses.replace(step, processes=asked.processes, recompute=asked.recompute)


def planned_flops(
    study: Study, corpus: Corpus, command: str, models: ImportedModels | None = None
) -> float:
    """Training FLOPs of all that `mixopt search`, `select`, `promote` or `run` trains."""
    return sum(s.flops for s in steps(study, corpus, models) if command in ("run", s.command))


def asks_for_cohort(plan: Sequence[Step], study: Study, slots: int) -> bool:
    """Whether `planned_room` has to measure how many trials train best as one."""
    asked = study.ray.cohort == "auto"
    return asked and any(step.at_once > slots for step in plan if step.proxies)


def planned_room(plan: Sequence[Step], study: Study, slots: int) -> Room:
    """How this machine would pack the trials of `plan`; `cohort: auto` is measured here."""
    if study.ray.cohort != "auto":
        return Room(slots, study.ray.cohort, busy=False)
    if not asks_for_cohort(plan, study, slots):
        return Room(slots)
    trials = [step for step in plan if step.proxies]
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


def measured_speed(step: Step, cohort: int, study: Study, corpus: Corpus) -> float | None:
    """Training tokens per second of `cohort` such trainings as one, by running a little here.

    Of a full run, in one process. None of a model that is too large for that.
    """
    probe = _probe(step)
    if probe is None:
        return None
    recipe = dataclasses.replace(probe[0], evaluations=1, evaluation_tokens=1, curve_tokens=1)
    job = Job(
        model=step.model,
        recipe=recipe,
        corpus=str(study.corpus_path),
        mixtures=(corpus.natural,) * cohort,
        seeds=tuple(range(cohort)),
        tokens=probe[1] * recipe.tokens_per_step,
    )
    seen: list[float] = []

    def report(progress: Progress) -> None:
        seen.append(progress.tokens_per_second)

    with tempfile.TemporaryDirectory() as folder:
        _train(job, step, Path(folder), report, study_resources(study))
    return seen[-1]


def can_be_tried(step: Step) -> bool:
    """Whether `measured_speed` tries it: not a full run of a model that is too large for that."""
    return _probe(step) is not None


def _probe(step: Step) -> tuple[Recipe, int] | None:
    """How a step is tried, and for how many steps: large full runs on single sequences."""
    model, recipe = step.model, step.recipe
    if step.proxies:
        return recipe, PROBE_STEPS
    single = dataclasses.replace(recipe, batch_sequences=1, micro_batches=1)
    for tried in (recipe, single):
        per_token = TRAINING_PER_FORWARD * model.flops_per_token(tried.sequence_length)
        steps = int(PROBE_FLOPS / (per_token * tried.tokens_per_step))
        if steps >= FEWEST_STEPS and full_run_memory(model, tried).training <= PROBE_BYTES:
            return tried, min(steps, PROBE_STEPS)
    return None


def _train(
    job: Job, step: Step, folder: Path, report: Callable[[Progress], None], asked: Resources
) -> None:
    import torch

    from mixopt.proxies.full_run.training import ours, train_full
    from mixopt.proxies.full_run.world import World
    from mixopt.proxies.training import train

    if step.proxies:
        train(job, folder, report, threads=asked.threads, device=asked.device)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(asked.threads)
    world = World(device=torch.device(asked.device))
    train_full(job, folder, world, report, kind=ours(step.recompute))
    torch.set_num_threads(threads)
