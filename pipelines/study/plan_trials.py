"""How many trials a study asks for; `mixopt plan` where the trainer is the user's own."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mixopt.core.formatting import count
from mixopt.pipelines.views.smallest_difference import smallest_difference_line
from mixopt.pipelines.views.wording import command
from mixopt.selection.candidates import UNIFORM
from mixopt.study.data import TrainingData
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.settings import Study
from mixopt.study.smallest_difference import of_plan
from mixopt.study.snapshot import read_snapshot
from mixopt.trainers.preflight import look_at

ROUNDS = "rounds"
FULL_RUN = "full run (promote.trainer)"
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


def show_smallest_difference(study: Study, data: TrainingData, console: Console) -> None:
    """Print what selection will be able to see, by the noise of the trials so far."""
    seen = of_plan(
        study.select,
        most_finalists(study, data),
        read_snapshot(study).trials,
        study.mixture_objective(),
        study.proxy_fidelity(data),
    )
    line = smallest_difference_line(seen, study.mixture_objective())
    console.print(f"\n{line}", soft_wrap=True)


def _show_trainer(study: Study, console: Console) -> None:
    """Print what was found of the trainer on this machine; it is not run.

    Raises:
        StudyError: a file that it depends on is not there.
    """
    assert study.trainer is not None
    if study.trainer.elsewhere:
        first = command("ask", study.path)
        console.print(f"Trained elsewhere: `{first}` hands the trainings out.", soft_wrap=True)
        return
    with study.naming():
        findings = look_at(study.trainer.made(study.path.parent))
    console.print("Trainer, looked at on this machine and not run:")
    for finding in findings:
        style = None if finding.fine else "yellow"
        console.print(f"  {'✓' if finding.fine else '✗'} {finding.text}", style=style)


def show_own_plan(study: Study, data: TrainingData, console: Console) -> None:
    """Print how many trainings the study asks its own trainer for, and of how many tokens."""
    table = Table(title=f"Plan of {study.name}", title_justify="left")
    for column in ("step", "trainings", "tokens each", "tokens"):
        table.add_column(column, justify="left" if column == "step" else "right")
    counts, each = trial_counts(study, data), study.proxy.tokens
    rows = [(name, runs, each) for name, runs in counts.items()]
    if (larger := study.larger_fidelity(data)) is not None:
        rows.append((LARGER, larger_count(study), larger.tokens))
    if study.promote is not None and study.promote.trainer is not None:
        rows.append((FULL_RUN, 1, study.promote.tokens))
    for name, runs, tokens in rows:
        table.add_row(name, str(runs), count(tokens), count(runs * tokens))
    table.add_section()
    runs = sum(runs for _, runs, _ in rows)
    table.add_row("in all", str(runs), "", count(sum(runs * tokens for _, runs, tokens in rows)))
    console.print(table)
    _show_trainer(study, console)
    weighed = ", ".join(
        f"{weight:g} × {name} ({study.metrics.get(name, 'lower')} is better)"
        for name, weight in study.objective.items()
    )
    console.print(f"Objective: {weighed}.", style="dim", markup=False)
    if study.space.budget is None and study.promote is None:
        console.print(
            "space.budget is not set: the mixture is for a run as long as a trial.", style="dim"
        )
    console.print(
        "Times are not known: the trainer is yours. One training shows what it takes.",
        style="dim",
    )
