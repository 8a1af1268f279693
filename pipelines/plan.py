"""`mixopt plan`: what a study will cost, before a token is spent."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.study import Study, load_study
from pipelines.console import make_console
from pipelines.promote import check
from pipelines.wording import count, duration
from workers.cluster import Resources

PROBE_STEPS = 24


@dataclass(frozen=True)
class Step:
    """A step of the study: `runs` trainings of `tokens` tokens each."""

    name: str
    runs: int
    tokens: int
    model: ModelConfig
    recipe: Recipe
    parallel: bool = True

    @property
    def flops(self) -> float:
        """Training FLOPs of the step."""
        per_token = self.model.flops_per_token(self.recipe.sequence_length)
        return TRAINING_PER_FORWARD * per_token * self.tokens * self.runs


def steps(study: Study, corpus: Corpus) -> list[Step]:
    """The study's steps with their trainings, as the study file asks for them."""
    proxy, search, select = study.proxy, study.search, study.select
    model = study.proxy_model(corpus)
    found = [
        Step("first swarm", search.trials + search.repeats, proxy.tokens, model, proxy.recipe),
        Step("rounds", search.rounds * search.batch, proxy.tokens, model, proxy.recipe),
        # Natural, uniform, the surrogate's optimum and the best observed; often two of them agree.
        Step("selection (at most)", 4 * select.seeds, proxy.tokens, model, proxy.recipe),
    ]
    if study.promote is not None:
        promote = study.promote
        full = dataclasses.replace(promote.model, vocab_size=corpus.vocab_size)
        recipe = promote.recipe
        found += [
            Step("dense seed model", 1, promote.seed_tokens, full.as_dense(), recipe, False),
            Step("domain experts", full.experts, promote.expert_tokens, full.as_dense(), recipe),
            Step("upcycled model", 1, promote.tokens, full, recipe, False),
        ]
    return found


def measured_speed(step: Step, study: Study, corpus: Corpus) -> float:
    """Training tokens per second of one such training on one thread here, by running a little."""
    from proxies.job import Job
    from proxies.training import Progress, train

    recipe = dataclasses.replace(step.recipe, evaluations=1, evaluation_tokens=1, curve_tokens=1)
    job = Job(
        model=step.model,
        recipe=recipe,
        corpus=str(study.corpus_path),
        mixtures=(corpus.natural,),
        seeds=(0,),
        tokens=PROBE_STEPS * recipe.tokens_per_step,
    )
    seen: list[float] = []

    def report(progress: Progress) -> None:
        seen.append(progress.tokens_per_second)

    with tempfile.TemporaryDirectory() as folder:
        device = Resources(gpus=study.ray.gpus_per_trial).device
        train(job, Path(folder), report, threads=1, device=device)
    return seen[-1]


def _evaluation(study: Study) -> str:
    share = study.proxy.recipe.evaluation_share
    return "it has no limit" if share is None else f"of proxies about {share:.0%} more"


def show_plan(path: Path, slots: int) -> None:
    """Print the study's steps, their cost and time, and the constraints that bind.

    Args:
        path: the study file.
        slots: trainings at once; 0 for as many as this machine has cores.
    """
    study = load_study(path)
    corpus = study.open_corpus()
    check(study, corpus)
    console = make_console()
    slots = slots or max(1, int((os.cpu_count() or 1) / study.ray.cpus_per_trial))
    table = Table(title=f"Plan of {study.name}: {slots} trainings at once", title_justify="left")
    for column in ("step", "trainings", "tokens each", "tokens", "FLOPs", "device time", "wall"):
        table.add_column(column, justify="left" if column == "step" else "right")
    plan = steps(study, corpus)
    with console.status("measuring the speed of this machine …"):
        speeds = {
            model: measured_speed(next(s for s in plan if s.model == model), study, corpus)
            for model in {s.model for s in plan}
        }
    device, wall = 0.0, 0.0
    for step in plan:
        each = step.tokens / speeds[step.model]
        waves = -(-step.runs // slots) if step.parallel else step.runs
        device, wall = device + each * step.runs, wall + each * waves
        table.add_row(
            step.name,
            str(step.runs),
            count(step.tokens),
            count(step.runs * step.tokens),
            count(step.flops),
            duration(each * step.runs),
            duration(each * waves),
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
        f"Times are for one core of this machine ({PROBE_STEPS} steps measured just now; "
        f"evaluation not counted: {_evaluation(study)}).",
        style="dim",
    )
    space = study.mixture_space(corpus)
    console.print(f"\nThe mixture is for a run of {count(study.budget)} tokens.")
    capped = [name for name, cap in space.caps.items() if cap < 1]
    for name in capped:
        console.print(
            f"  {name}: at most {space.caps[name]:.1%} ({count(corpus.tokens[name])} tokens)"
        )
    if not capped:
        console.print("  No domain is too small for it: only the study's own bounds bind.")
    natural = space.binding(space.natural)
    for line in natural if not space.contains(space.natural) else []:
        console.print(f"  The natural mixture is outside: {line}")
