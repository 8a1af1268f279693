"""The description of a trial's run in MLflow: what it was, what it came to, on what mixture."""

from __future__ import annotations

from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.core.trials import Role, State, Trial
from mixopt.pipelines.views.mlflow.page import RUN, page
from mixopt.pipelines.views.verbatim import verbatim, verbatim_block
from mixopt.pipelines.views.wording import cost_sentence, unit

WHY = {
    Role.DESIGN: "a mixture of the initial design",
    Role.SEARCH: "a mixture that the proposer asked for",
    Role.REPEAT: "the baseline again with another seed, to measure noise",
    Role.ENQUEUED: "a mixture that the study file asked for",
    Role.HOLDOUT: "kept aside: predicted before it ran, and learned from by nothing",
    Role.SELECT: "a candidate or baseline with a fresh seed, for the gate",
    Role.TRANSFER: "a candidate or baseline at a larger size",
}
MESSAGE = 4000  # characters of the end of a message: a traceback's cause stands there
SHOWN = ("mixopt", "torch", "device", "precision")  # of a result's environment


def trial_markdown(trial: Trial, objective: Objective) -> str:
    """What happened, why it was run, and a table of the mixture with the metrics of its domains.

    The first line is the outcome: MLflow shows three lines until one asks for more.
    """
    spec = trial.spec
    of = f" The candidate is *{verbatim(spec.candidate)}*." if spec.candidate else ""
    why = f"Trial {trial.number}, {spec.role}: {WHY[spec.role]}.{of}"
    failed = trial.message and trial.state is not State.PRUNED
    happened = verbatim_block(trial.message[-MESSAGE:]) if failed else ""
    parts = [_outcome(trial, objective), why, _spent(trial), happened, _mixture_table(trial)]
    return page(parts, RUN)


def _outcome(trial: Trial, objective: Objective) -> str:
    value = objective.of_trial(trial)
    fidelity = trial.spec.fidelity
    if value is not None:
        shown = f"{objective.sign * value:.4f}".replace("-", "−")
        what = unit(objective)
        size = f" ({count(fidelity.params)} active parameters)" if fidelity.params_known else ""
        return (
            f"**Objective {shown}**{f' {verbatim(what)}' if what else ''} after "
            f"{count(fidelity.tokens)} tokens{size}."
        )
    if trial.state is State.PRUNED:
        return f"**Pruned**: {verbatim(trial.message)}"
    if trial.state is State.FAILED:
        what = str(trial.failure or trial.state).replace("_", " ")
        return f"**Failed: {what}.** It counts as no score."
    if trial.state is State.WAITING and trial.attempts:
        return "**Interrupted**: it waits for the next `mixopt run`, which trains it on."
    return f"**{str(trial.state).capitalize()}**: {count(fidelity.tokens)} tokens to train."


def _mixture_table(trial: Trial) -> str:
    """A row per domain, largest weight first; validation domains that no weight is of come last."""
    weights, metrics = trial.spec.mixture.as_dict(), trial.metrics
    order = sorted(weights, key=lambda name: -weights[name])
    others = [
        name.removeprefix("bpb/")
        for name in metrics
        if name.startswith("bpb/") and name.removeprefix("bpb/") not in weights
    ]
    measured = any(f"bpb/{name}" in metrics for name in (*order, *others))
    head = ["domain", "weight", *(["bits per byte"] if measured else [])]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in (*order, *others):
        weight = f"{weights[name]:.1%}" if name in weights else "–"
        value = metrics.get(f"bpb/{name}")
        cell = "–" if value is None else f"{value:.4f}"
        rows.append([verbatim(name), weight, *([cell] if measured else [])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spent(trial: Trial) -> str:
    """Cost, attempts and versions in a line."""
    parts = [f"Seed {trial.spec.seed}."]
    if trial.result is not None:
        parts.append(cost_sentence(trial.result.cost))
    if trial.attempts > 1:
        parts.append(f"{trial.attempts} attempts.")
    if trial.result is not None:
        environment = trial.result.environment
        about = [f"{key} {environment[key]}" for key in SHOWN if environment.get(key)]
        parts.append(f"With {verbatim(', '.join(about))}." if about else "")
    return " ".join(part for part in parts if part)
