"""`mixopt plan`: what a study will cost, before a token is spent."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count, duration
from mixopt.core.space import MixtureSpace
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.learning_rates import SMALLEST, advised_peak_rate, is_extrapolated
from mixopt.models.shape_laws import Start, shape_advice
from mixopt.pipelines.study.checks import check
from mixopt.pipelines.study.imported_checks import import_models
from mixopt.pipelines.study.imported_lines import imported_lines
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.pipelines.study.initial_model import format_notes
from mixopt.pipelines.study.plan_changes import change_notes
from mixopt.pipelines.study.plan_measuring import measure as measured
from mixopt.pipelines.study.plan_memory import frozen_to_the_end, masked_apart, memory_lines
from mixopt.pipelines.study.plan_steps import (
    PROBE_STEPS,
    Room,
    Step,
    promotion_steps,
    steps,
)
from mixopt.pipelines.study.plan_trials import (
    FULL_RUN,
    baseline_curve_notes,
    full_run_trainer_notes,
    own_notes,
    own_trainings,
    smallest_difference_note,
)
from mixopt.pipelines.study.promotion_folder import asked_folder, asked_of
from mixopt.pipelines.study.promotion_identity import new_promotion_note
from mixopt.pipelines.study.promotion_room import planned_room_note
from mixopt.pipelines.study.session import study_resources
from mixopt.pipelines.views.console import make_console, make_error_console
from mixopt.pipelines.views.json_output import print_json
from mixopt.selection.candidates import NATURAL
from mixopt.study.data import TrainingData
from mixopt.study.named_parts import import_named_parts
from mixopt.study.records import read_verdict
from mixopt.study.settings import Study, load_study


@dataclass(frozen=True)
class PlannedStep:
    """A row of the plan.

    Attributes:
        step: its name.
        trainings: how many, at most.
        tokens_each: training tokens of each.
        flops: training FLOPs of all; None of a trainer of the user's.
        device_seconds: that devices train; None where it is not measured.
        wall_seconds: until the last ends; None where it is not measured.
    """

    step: str
    trainings: int
    tokens_each: int
    flops: float | None = None
    device_seconds: float | None = None
    wall_seconds: float | None = None

    @property
    def tokens(self) -> int:
        """Of all trainings."""
        return self.trainings * self.tokens_each


@dataclass(frozen=True)
class StudyPlan:
    """What a study will train.

    Attributes:
        study: its name.
        at_once: trainings at once; None of a trainer of the user's.
        rows: a step each.
        notes: what is to be said beside them, in order.
    """

    study: str
    at_once: int | None
    rows: Sequence[PlannedStep]
    notes: Sequence[str]

    def total(self, name: str) -> float | None:
        """The sum of a column; None where it is not known of a row."""
        values = [getattr(row, name) for row in self.rows]
        return None if None in values else sum(values)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON-able values."""
        rows = [{**dataclasses.asdict(row), "tokens": row.tokens} for row in self.rows]
        columns = ("trainings", "tokens", "flops", "device_seconds", "wall_seconds")
        return {
            "study": self.study,
            "trainings_at_once": self.at_once,
            "steps": rows,
            "total": {name: self.total(name) for name in columns},
            "notes": list(self.notes),
        }


def show_plan(path: Path, slots: int, *, measure: bool = True, as_json: bool = False) -> None:
    """Print the study's steps, their cost and time, and the constraints that bind.

    Args:
        path: the study file.
        slots: trainings at once; 0 for as many as this machine has cores.
        measure: train a few steps here, for the times; without it there are none.
        as_json: print one JSON object.
    """
    study = load_study(path)
    import_named_parts(study)
    data = study.open_data()
    check(study, data)
    space = study.mixture_space(data)
    if study.trainer is not None:
        plan = own_plan(study, data)
    else:
        assert isinstance(data, Corpus)  # our proxies read one
        plan = proxies_plan(study, data, slots, measure=measure)
    about_space = space_notes(study, space, data)
    room = filter(None, [planned_room_note(study)])
    changes = change_notes(study, data)
    notes = [*changes, *room, *plan.notes, *baseline_curve_notes(study)]
    plan = dataclasses.replace(plan, notes=notes)
    seen = smallest_difference_note(study, data)
    if as_json:
        print_json(plan.to_json() | {"space": about_space, "smallest_difference": seen})
        return
    console = make_console()
    _print_plan(plan, console)
    console.print("\n" + "\n".join(about_space))
    console.print(f"\n{seen}")


def own_plan(study: Study, data: TrainingData) -> StudyPlan:
    """The plan of a study whose proxies a trainer of the user's trains; the promotion may be ours.

    Raises:
        StudyError: a file of a trainer is not there, or an imported model cannot be used.
    """
    rows, notes = [PlannedStep(*row) for row in own_trainings(study, data)], list[str]()
    if study.upcycling is not None:
        assert isinstance(data, Corpus)  # or the checks refuse it
        models = _imported(study, data)
        ours = promotion_steps(study, data, models)
        place = len(rows) - any(row.step == FULL_RUN for row in rows)
        rows[place:place] = [_planned(step, Room(1), None) for step in ours]
        notes = [*_new_promotion(study, data, models), *_promotion_notes(study, data, models, ours)]
    return StudyPlan(study.name, None, rows, [*notes, *own_notes(study)])


def proxies_plan(study: Study, corpus: Corpus, slots: int, *, measure: bool = True) -> StudyPlan:
    """The plan of a study that trains our proxies; arguments as of `show_plan`."""
    console, models = make_error_console(), _imported(study, corpus)
    slots = slots or max(1, int((os.cpu_count() or 1) / study.ray.cpus_per_trial))
    trainings = steps(study, corpus, models)
    room, speeds = Room(slots), dict[str, float]()
    if measure:
        room, speeds = measured(trainings, study, slots, corpus, console)
    return StudyPlan(
        study.name,
        slots,
        [_planned(step, room, speeds.get(step.name)) for step in trainings],
        [
            *_new_promotion(study, corpus, models),
            *_time_notes(study, trainings, room, speeds, measured=measure),
            *_promotion_notes(study, corpus, models, trainings),
            *full_run_trainer_notes(study),
        ],
    )


def _imported(study: Study, corpus: Corpus) -> ImportedModels | None:
    console = make_error_console()
    return import_models(study, corpus, lambda line: console.print(line, style="dim"))


def _promotion_notes(
    study: Study, corpus: Corpus, models: ImportedModels | None, trainings: Sequence[Step]
) -> list[str]:
    """What is to be said of `trainings`, and of the models that are upcycled."""
    return [
        *memory_lines(trainings),
        *frozen_to_the_end(study.upcycling),
        *masked_apart(study),
        *(() if models is None else imported_lines(study, corpus, models)),
        *rate_advice(trainings),
        *promotion_advice(study, corpus),
        *format_notes(study.upcycling, corpus, models),
    ]


def _new_promotion(study: Study, corpus: Corpus, models: ImportedModels | None) -> list[str]:
    """A line where a promotion of the verdict's mixture would begin anew, beside another."""
    verdict = read_verdict(study.home)
    if study.upcycling is None or verdict is None:
        return []
    asked = asked_of(study, corpus, study.upcycling, verdict.mixture, models)
    note = new_promotion_note(asked_folder(study, asked), asked)
    return [note] if note else []


def _planned(step: Step, room: Room, speed: float | None) -> PlannedStep:
    row = PlannedStep(step.name, step.runs, step.tokens, step.flops)
    if speed is None:
        return row
    spent, lasts = step.device_seconds(speed), step.wall_seconds(room, speed)
    return dataclasses.replace(row, device_seconds=spent, wall_seconds=lasts)


def _time_notes(
    study: Study,
    trainings: Sequence[Step],
    room: Room,
    speeds: Mapping[str, float],
    *,
    measured: bool,
) -> list[str]:
    """What the table's times are of, and what they leave out."""
    notes = []
    if measured:
        notes.append(
            f"Times are for {_cores(study)} of this machine ({PROBE_STEPS} steps measured just "
            f"now; evaluation is not counted; it {_evaluation(study)})."
        )
    else:
        notes.append(
            "Nothing was measured, so there are no times (--no-measure). Evaluation is not "
            f"counted; it {_evaluation(study)}."
        )
    if large := [step.name for step in trainings if measured and step.name not in speeds]:
        notes.append(f"Too large to be tried on this machine: {', '.join(large)}.")
    if measured and (many := max(step.processes for step in trainings) - 1):
        notes.append(
            f"Trainings of the promotion share their work in {many + 1} processes; their wall time "
            "is that of one process, measured, divided by them."
        )
    if study.search.pruner is not None:
        notes.append(
            "Trials that are pruned cost less than this; the initial design waits for its first "
            f"{study.search.pruner.startup_trials} (search.pruner)."
        )
    largest = max(step.cohorts(room)[0] for step in trainings)
    if largest > 1:
        notes.append(f"Trials train in cohorts of up to {largest} (ray.cohort).")
    if study.promote is not None and study.promote.trainer is not None:
        notes.append(
            f"{FULL_RUN.capitalize()}: {count(study.promote.tokens)} tokens, not in the table: "
            "your trainer's times are not known."
        )
    return notes


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
    model = promote.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
    return shape_advice(Start(model, promote.seed_tokens, promote.tokens))


def _evaluation(study: Study) -> str:
    share = study.proxy.recipe.evaluation_share
    if share is None:
        return "has no limit (evaluation_share: null)"
    return f"adds up to about {share:.0%} to the FLOPs of a proxy"


def _print_plan(plan: StudyPlan, console: Console) -> None:
    at_once = "" if plan.at_once is None else f": {plan.at_once} trainings at once"
    table = Table(title=f"Plan of {plan.study}{at_once}", title_justify="left")
    known = [
        name
        for name in ("flops", "device_seconds", "wall_seconds")
        if any(getattr(row, name) for row in plan.rows)
    ]
    heads = {"flops": "FLOPs", "device_seconds": "device time", "wall_seconds": "wall"}
    for column in ("step", "trainings", "tokens each", "tokens", *(heads[name] for name in known)):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in plan.rows:
        cells = (_cell(name, getattr(row, name)) for name in known)
        each, tokens = count(row.tokens_each), count(row.tokens)
        table.add_row(row.step, str(row.trainings), each, tokens, *cells)
    table.add_section()
    cells = (_cell(name, plan.total(name)) for name in known)
    tokens = count(plan.total("tokens") or 0)
    table.add_row("in all", str(plan.total("trainings")), "", tokens, *cells)
    console.print(table)
    for note in plan.notes:
        console.print(note, style="dim")


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return count(value) if name == "flops" else duration(value)


def space_notes(study: Study, space: MixtureSpace, data: TrainingData) -> list[str]:
    """Which domains are too small for the run that the mixture is for, and what to beat."""
    notes = [f"The mixture is for a run of {count(study.budget)} tokens."]
    capped = [name for name, cap in space.caps.items() if cap < 1]
    for name in capped:
        notes.append(
            f"  {name}: at most {space.caps[name]:.1%} ({count(data.tokens[name])} tokens)"
        )
    if not capped:
        notes.append("  No domain is too small for it: only the study's own bounds bind.")
    first, *others = study.baselines(data)
    if first != NATURAL or others:
        more = f"; compared with as well: {', '.join(others)}" if others else ""
        notes.append(f"  The mixture to beat is {first}{more}.")
    bounds = space.binding(space.reference)
    for line in bounds if not space.contains(space.reference) else []:
        notes.append(f"  The {first} mixture is outside: {line}")
    return notes
