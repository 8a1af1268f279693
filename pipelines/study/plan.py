"""`mixopt plan`: what a study will cost, before a token is spent."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count
from mixopt.core.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.core.space import MixtureSpace
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.learning_rates import SMALLEST, advised_peak_rate, is_extrapolated
from mixopt.models.shape_laws import Start, shape_advice
from mixopt.pipelines.study.checks import check
from mixopt.pipelines.study.cohorts import sizes
from mixopt.pipelines.study.dense_models import dense_models
from mixopt.pipelines.study.imported_checks import import_models
from mixopt.pipelines.study.imported_lines import imported_lines
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.plan_trials import (
    FULL_RUN,
    LARGER,
    ROUNDS,
    SELECTION,
    larger_count,
    show_own_plan,
    show_smallest_difference,
    trial_counts,
)
from mixopt.pipelines.study.session import study_resources
from mixopt.pipelines.views.console import make_console, styled
from mixopt.pipelines.views.wording import duration
from mixopt.selection.candidates import NATURAL
from mixopt.study.data import TrainingData
from mixopt.study.settings import Study, load_study

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


def _cores(study: Study) -> str:
    threads = study_resources(study).threads
    return "one core" if threads == 1 else f"{threads} cores"


def rate_advice(plan: Sequence[Step]) -> list[str]:
    """The learning rate that a published law advises for each of the plan's shapes."""
    lines: dict[tuple[ModelConfig, float], str] = {}
    for step in (s for s in plan if not is_extrapolated(s.model)):
        rate, asked = advised_peak_rate(step.model), step.recipe.learning_rate
        lines.setdefault(
            (step.model, asked),
            f"Learning rate, {step.name}: {asked:.2g} is asked for; the joint MoE law (2502.05172) "
            f"would take {rate:.2g}.",
        )
    advice = list(lines.values())
    if any(is_extrapolated(step.model) for step in plan):
        advice.append(
            "Learning rates: the joint MoE law (2502.05172) has no advice for models of less than "
            f"{count(SMALLEST)} active parameters."
        )
    return advice


def promotion_advice(study: Study, corpus: Corpus) -> list[str]:
    """What published laws say of the promoted shape and of starting it from dense models.

    Of imported models nothing: the tokens that they have seen are not known.
    """
    promote = study.upcycling
    if promote is None or promote.seed_model is not None:
        return []
    model = dataclasses.replace(promote.model, vocab_size=corpus.vocab_size)
    return shape_advice(Start(model, promote.seed_tokens, promote.tokens))


def _evaluation(study: Study) -> str:
    share = study.proxy.recipe.evaluation_share
    if share is None:
        return "has no limit (evaluation_share: null)"
    return f"adds up to about {share:.0%} to the FLOPs of a proxy"


def show_plan(path: Path, slots: int) -> None:
    """Print the study's steps, their cost and time, and the constraints that bind.

    Args:
        path: the study file.
        slots: trainings at once; 0 for as many as this machine has cores.
    """
    study = load_study(path)
    study.import_own_parts()
    data = study.open_data()
    check(study, data)
    space, console = study.mixture_space(data), make_console()
    if study.trainer is not None:
        show_own_plan(study, data, console)
    else:
        assert isinstance(data, Corpus)  # our proxies read one
        _show_proxies_plan(study, data, slots, console)
    _show_space(study, space, data, console)
    show_smallest_difference(study, data, console)


def _show_proxies_plan(study: Study, corpus: Corpus, slots: int, console: Console) -> None:
    models = import_models(study, corpus, lambda line: console.print(line, style="dim"))
    slots = slots or max(1, int((os.cpu_count() or 1) / study.ray.cpus_per_trial))
    table = Table(title=f"Plan of {study.name}: {slots} trainings at once", title_justify="left")
    for column in ("step", "trainings", "tokens each", "tokens", "FLOPs", "device time", "wall"):
        table.add_column(column, justify="left" if column == "step" else "right")
    plan = steps(study, corpus, models)
    with console.status(styled("measuring the speed of this machine …")):
        room = planned_room(plan, study, slots)
        # cohorts that are handed out together differ by one at most: the larger size is timed
        kinds = {step.name: (step.model, step.cohorts(room)[0]) for step in plan}
        speeds = {
            kind: measured_speed(
                next(s for s in plan if kinds[s.name] == kind), kind[1], study, corpus
            )
            for kind in dict.fromkeys(kinds.values())
        }
    device, wall = 0.0, 0.0
    for step in plan:
        speed = speeds[kinds[step.name]]
        spent, lasts = step.device_seconds(speed), step.wall_seconds(room, speed)
        device, wall = device + spent, wall + lasts
        table.add_row(
            step.name,
            str(step.runs),
            count(step.tokens),
            count(step.runs * step.tokens),
            count(step.flops),
            duration(spent),
            duration(lasts),
        )
    table.add_section()
    table.add_row(
        "in all",
        str(sum(s.runs for s in plan)),
        "",
        count(sum(s.runs * s.tokens for s in plan)),
        count(sum(s.flops for s in plan)),
        duration(device),
        duration(wall),
    )
    console.print(table)
    console.print(
        f"Times are for {_cores(study)} of this machine ({PROBE_STEPS} steps measured just now; "
        f"evaluation is not counted; it {_evaluation(study)}).",
        style="dim",
    )
    if study.search.pruner is not None:
        console.print(
            "Trials that are pruned cost less than this; the initial design waits for its first "
            f"{study.search.pruner.startup_trials} (search.pruner).",
            style="dim",
        )
    largest = max(cohort for _, cohort in kinds.values())
    if largest > 1:
        console.print(f"Trials train in cohorts of up to {largest} (ray.cohort).", style="dim")
    if study.promote is not None and study.promote.trainer is not None:
        console.print(
            f"{FULL_RUN.capitalize()}: {count(study.promote.tokens)} tokens, not in the table: "
            "your trainer's times are not known.",
            style="dim",
        )
    for line in () if models is None else imported_lines(study, corpus, models):
        console.print(line, soft_wrap=True)
    for line in (*rate_advice(plan), *promotion_advice(study, corpus)):
        console.print(line, style="dim")


def _show_space(study: Study, space: MixtureSpace, data: TrainingData, console: Console) -> None:
    """Print which domains are too small for the run that the mixture is for."""
    console.print(f"\nThe mixture is for a run of {count(study.budget)} tokens.")
    capped = [name for name, cap in space.caps.items() if cap < 1]
    for name in capped:
        console.print(
            f"  {name}: at most {space.caps[name]:.1%} ({count(data.tokens[name])} tokens)"
        )
    if not capped:
        console.print("  No domain is too small for it: only the study's own bounds bind.")
    first, *others = study.baselines(data)
    if first != NATURAL or others:
        more = f"; compared with as well: {', '.join(others)}" if others else ""
        console.print(f"  The mixture to beat is {first}{more}.")
    bounds = space.binding(space.reference)
    for line in bounds if not space.contains(space.reference) else []:
        console.print(f"  The {first} mixture is outside: {line}")
