"""How many trials a study asks for; `mixopt plan` where the trainer is the user's own."""

from __future__ import annotations

from mixopt.pipelines.study.baseline_curve import KEY, given_curve, known_evaluations
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.smallest_difference import smallest_difference_line
from mixopt.selection.candidates import UNIFORM
from mixopt.study.data import TrainingData
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.settings import Study
from mixopt.study.smallest_difference import of_plan
from mixopt.study.snapshot import read_snapshot
from mixopt.study.trainings import larger_fidelity, proxy_fidelity
from mixopt.trainers.base import Trainer
from mixopt.trainers.preflight import look_at

ROUNDS = "rounds"
FULL_RUN = "full run (promote.trainer)"
SHARED = (
    "promote.upcycle: the dense models, trained or imported, and their upcycling are ours; your "
    "trainer trains the upcycled model on the mixture, from the folder `initial_model` of its job."
)
LOOKED_AT = "looked at on this machine and not run"
SELECTION = "selection (at most)"  # often two of the finalists agree
LARGER = "larger size (at most)"  # nothing runs there where the baseline is promoted


def trial_counts(study: Study, data: TrainingData) -> dict[str, int]:
    """Step → how many trials it runs, at most; steps without any are left out."""
    search, space = study.search, study.mixture_space(data)
    counts = {
        "initial design": search.trials + search.repeats,
        "enqueued mixtures": len(enqueued_mixtures(study, space)),
        ROUNDS: search.rounds * search.batch,
        "held-out trials": search.holdout,
        SELECTION: most_finalists(study, data) * study.select.seeds,
    }
    return {name: runs for name, runs in counts.items() if runs}


def most_finalists(study: Study, data: TrainingData) -> int:
    """How many mixtures selection compares at most, baselines among them."""
    space = study.mixture_space(data)
    # the surrogate's optimum, the best observed, uniform; outside, the projection runs as well
    outside = not space.contains(space.reference)
    return len({*study.baselines(data), UNIFORM}) + 2 + outside


def larger_count(study: Study) -> int:
    """How many trials run at the larger size (`select.at`), at most."""
    at = study.select.at
    return 0 if at is None else (1 + at.candidates) * at.seeds


def planned_larger(study: Study, command: str) -> int:
    """How many of these `mixopt search`, `select`, `promote` or `run` trains at most."""
    return larger_count(study) if command in ("select", "run") else 0


def planned_trials(study: Study, data: TrainingData, command: str) -> int:
    """How many trials `mixopt search`, `select`, `promote` or `run` trains at most."""
    counts = trial_counts(study, data)
    selection = counts.pop(SELECTION)
    search = sum(counts.values())
    return {"search": search, "select": selection, "run": search + selection}.get(command, 0)


def smallest_difference_note(study: Study, data: TrainingData) -> str:
    """What selection will be able to see, by the noise of the trials so far."""
    seen = of_plan(
        study.select,
        most_finalists(study, data),
        read_snapshot(study).trials,
        study.mixture_objective(),
        proxy_fidelity(study, data),
    )
    return smallest_difference_line(seen, study.mixture_objective())


def own_trainings(study: Study, data: TrainingData) -> list[tuple[str, int, int]]:
    """Step, trainings and tokens of each that the study asks its own trainer for, at most."""
    counts, each = trial_counts(study, data), study.proxy.tokens
    rows = [(name, runs, each) for name, runs in counts.items()]
    if (larger := larger_fidelity(study, data)) is not None:
        rows.append((LARGER, larger_count(study), larger.tokens))
    if study.promote is not None and study.promote.trainer is not None:
        rows.append((FULL_RUN, 1, study.promote.tokens))
    return rows


def own_notes(study: Study) -> list[str]:
    """What is to be said of a trainer of the user's, which is looked at and not run.

    Raises:
        StudyError: a file that it depends on is not there.
    """
    weighed = ", ".join(
        f"{weight:g} × {name} ({study.metrics.get(name, 'lower')} is better)"
        for name, weight in study.objective.items()
    )
    notes = [*_trainer_notes(study), *full_run_trainer_notes(study), f"Objective: {weighed}."]
    if study.space.budget is None and study.promote is None:
        notes.append("space.budget is not set: the mixture is for a run as long as a trial.")
    times = "Times are not known: the trainer is yours. One training shows what it takes."
    return [*notes, times]


def _trainer_notes(study: Study) -> list[str]:
    """What was found of the trainer on this machine.

    Raises:
        StudyError: a file that it depends on is not there.
    """
    assert study.trainer is not None
    if study.trainer.elsewhere:
        return [f"Trained elsewhere: `{command('ask', study.path)}` hands the trainings out."]
    with study.naming():
        found = _looked_at(study.trainer.made(study.path.parent))
    return [f"Trainer, {LOOKED_AT}:", *found]


def full_run_trainer_notes(study: Study) -> list[str]:
    """What was found of the full run's trainer on this machine; empty where it has none of its own.

    Raises:
        StudyError: a file that it depends on is not there.
    """
    promote = study.promote
    own = None if promote is None else promote.trainer
    if promote is None or own is None:
        return []
    shared = [SHARED] if promote.upcycle else []
    if own.elsewhere:
        ask = command("ask", study.path)
        return [*shared, f"The full run is trained elsewhere: `{ask}` hands it out."]
    with study.naming("promote"):
        found = _looked_at(own.made(study.path.parent))
    return [*shared, f"Trainer of the full run (promote.trainer), {LOOKED_AT}:", *found]


def baseline_curve_notes(study: Study) -> list[str]:
    """How far the full run can be compared with the baseline's that the study names.

    Raises:
        StudyError: its file cannot be used.
    """
    curve = given_curve(study)
    if curve is None or study.promote is None:
        return []
    note = curve.note(study.promote.tokens, known_evaluations(study.promote))
    return [f"Full run of the baseline, {note} ({KEY})."]


def _looked_at(trainer: Trainer) -> list[str]:
    return [f"  {'✓' if finding.fine else '✗'} {finding.text}" for finding in look_at(trainer)]
