"""The description of a study's run in MLflow: verdict, next step, mixtures, guardrails, bill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixopt.core.formatting import count, duration
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Role, State, Trial
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.mlflow.page import RUN, page
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import (
    OVER_SEEDS,
    better,
    calibration,
    formula,
    gate_rows,
    guard_lines,
    headline,
    interval,
    interval_label,
    mixtures_note,
    promotion_markdown,
)
from mixopt.selection.results import Candidate
from mixopt.study.queries import SEARCH_ROLES
from mixopt.study.results import Promotion, Verdict

STEPS: Mapping[str, tuple[Role, ...]] = {
    "search": SEARCH_ROLES,
    "held-out trials": (Role.HOLDOUT,),
    "selection": (Role.SELECT,),
    "check at a larger size": (Role.TRANSFER,),
}


@dataclass(frozen=True)
class StudyPage:
    """What the page is made of.

    Attributes:
        file: the study file, for commands.
        trials: of the ledger.
        objective: the study's.
        verdict: None before a selection.
        promotion: None before one.
        promotes: the command that promotes; empty where the study file asks for no promotion.
        repeats: of the baseline, as many as it asks for.
        elsewhere: whether trials are asked for and told.
        remarks: further findings, a sentence or two each.
        links: text → address of other pages.
    """

    file: str
    trials: Sequence[Trial]
    objective: Objective
    verdict: Verdict | None
    promotion: Promotion | None
    promotes: str = ""
    repeats: int = 0
    elsewhere: bool = False
    remarks: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """The page; the verdict comes first, because MLflow shows three lines of it."""
        parts = [
            f"**{verbatim(headline(self.trials, self.objective, self.verdict, self.repeats))}**",
            f"**Next:** {next_step(self)}",
            " · ".join(f"[{verbatim(text)}]({address})" for text, address in self.links.items()),
        ]
        if self.verdict is not None:
            parts += ["### Mixtures", *_mixtures(self.verdict, self.objective)]
        if self.promotion is not None:
            parts += ["### Promoted model", promotion_markdown(self.promotion)]
        if self.remarks:
            parts += ["### How sure", *map(verbatim, self.remarks)]
        parts += ["### Bill", bill(self.trials, self.promotion), _states(self.trials)]
        parts.append(
            f"**Objective, {better(self.objective)}:** {verbatim(formula(self.objective))}"
        )
        return page(parts, RUN)


def next_step(study: StudyPage) -> str:
    """What to do now, with the command."""
    verdict, promotion, file = study.verdict, study.promotion, study.file
    if not all(trial.ended for trial in study.trials) or not study.trials:
        return f"`{command('ask' if study.elsewhere else 'run', file)}` goes on with the study."
    if verdict is None and study.elsewhere:
        return f"`{command('ask', file)}` hands out what comes next."
    if verdict is None:
        return f"`{command('select', file)}` compares the candidates with fresh seeds."
    if promotion is not None and promotion.mixture.same_as(verdict.mixture):
        if promotion.upcycled and not promotion.trained:
            return f"train the upcycled model; `{command('export', file, '--model', 'OUT')}`."
        return (
            f"train on the mixture: `{command('export', file, '--mixture', 'json')}`; or take the "
            f"promoted model: `{command('export', file, '--model', 'OUT')}`."
        )
    if study.promotes and verdict.level:
        how = "hands out the full run" if study.promotes == "ask" else "trains the model"
        return f"`{command(study.promotes, file)}` {how} on the selected mixture."
    if not verdict.improved:
        return "raise `search.rounds` or `select.seeds` in the study file, then run it again."
    return f"train on the mixture: `{command('export', file, '--mixture', 'json')}`."


def _mixtures(verdict: Verdict, objective: Objective) -> list[str]:
    """The table of mixtures, what its numbers are, what binds, and the guardrails."""
    parts = [_table(verdict.turned(objective.sign)), mixtures_note(verdict, objective)]
    if measured := calibration(verdict, objective):
        parts.append(verbatim(measured))
    if verdict.binding:
        parts.append(f"**Constraints that bind:** {'; '.join(map(verbatim, verdict.binding))}.")
    if lines := guard_lines(verdict, objective):
        parts += ["### Guardrails", *map(verbatim, lines)]
    return parts


def _table(verdict: Verdict) -> str:
    candidates = verdict.candidates
    domains = list(dict.fromkeys(d for it in candidates for d in it.mixture.domains))
    heads = [
        f"**{verbatim(it.name)}** (selected)" if it.name == verdict.promoted else verbatim(it.name)
        for it in candidates
    ]
    rows = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(candidates)]
    for domain in domains:
        weights = [f"{it.mixture.as_dict().get(domain, 0):.1%}" for it in candidates]
        rows.append(f"| {verbatim(domain)} | " + " | ".join(weights) + " |")
    rows.append(f"| **objective** {OVER_SEEDS} | " + " | ".join(map(_pair, candidates)) + " |")
    rows += [
        f"| {label} | " + " | ".join(cells) + " |"
        for label, cells in gate_rows(candidates, 4, verdict.baseline)
        if any(cell != "–" for cell in cells)
    ]
    cells = " | ".join(interval(it.predicted, 4) for it in candidates)
    return "\n".join([*rows, f"| {interval_label(verdict)} | {cells} |"])


def _pair(candidate: Candidate) -> str:
    if candidate.mean is None:
        return "–"
    spread = "" if candidate.std is None else f" ± {candidate.std:.4f}"
    return f"{candidate.mean:.4f}{spread}".replace("-", "−")


def bill(trials: Sequence[Trial], promotion: Promotion | None) -> str:
    """What each step has spent, as a table in Markdown."""
    rows = [["", "trainings", "tokens", "device time", "FLOPs"], ["---", *["---:"] * 4]]
    total, trainings = Cost(), 0
    for step, roles in STEPS.items():
        costs = [t.result.cost for t in trials if t.result and t.spec.role in roles]
        if not costs:
            continue
        spent = Cost()
        for cost in costs:
            spent = spent.plus(cost)
        rows.append([step, str(len(costs)), *_amounts(spent)])
        total, trainings = total.plus(spent), trainings + len(costs)
    if promotion is not None and promotion.trained:
        spent = Cost(promotion.tokens, promotion.device_seconds, 0.0)
        rows.append(["promotion", str(len(promotion.stages)), *_amounts(spent)])
        total, trainings = total.plus(spent), trainings + len(promotion.stages)
        rows.append(["together", str(trainings), *_amounts(total)[:2], "–"])
    elif len(rows) > 3:
        rows.append(["together", str(trainings), *_amounts(total)])
    if len(rows) == 2:
        return "Nothing is spent yet."
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _amounts(spent: Cost) -> list[str]:
    flops = count(spent.flops) if spent.flops else "–"
    return [count(spent.tokens), duration(spent.device_seconds), flops]


def _states(trials: Sequence[Trial]) -> str:
    counts = {state: sum(t.state is state for t in trials) for state in State}
    named = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return f"**Trials:** {named or 'none yet'}."
