"""`report.html` of a fit: one page that needs no network, in the frame of a study's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixopt import __version__
from mixopt.core.formatting import count, plus_minus, signed
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.offline.fidelity_words import fidelity_text
from mixopt.pipelines.offline.findings import NATURAL, PROPOSED, UNCONSTRAINED, Findings
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.page.parts import Answer, Cell, Figure, Page, Section, Table
from mixopt.pipelines.views.page.render import render as render_page
from mixopt.pipelines.views.reliability import HEAD, NOTE, ceiling_of, reliability_rows
from mixopt.pipelines.views.report_tables import effect_table
from mixopt.pipelines.views.scores import SCORES, SCORES_NOTE, off
from mixopt.pipelines.views.wording import weighed
from mixopt.plots import fit as fit_plots
from mixopt.surrogates.reliability import with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE

MOST_FIGURES = 24  # metrics that get a panel
NAMED = 4  # metrics that a sentence names
SURE = 0.9  # probability from which the proposed mixture is worth its training


def headline(found: Findings) -> str:
    """One sentence: the difference of the objective to the natural mixture, with intervals."""
    rows = [list(found.mixtures).index(name) for name in (NATURAL, PROPOSED)]
    means, stds = found.means[rows, -1], NORMAL_90 * found.stds[rows, -1]
    gap, spread = found.difference.mean, NORMAL_90 * found.difference.std
    return (
        f"Predicted objective {plus_minus(abs(gap), spread)} {'lower' if gap <= 0 else 'higher'} "
        f"at the proposed mixture than at the natural one: {plus_minus(means[1], stds[1])} against "
        f"{plus_minus(means[0], stds[0])} (± half the 90 % interval of {found.interval_of}; "
        f"probability that it is {found.better} {_percent(found.difference.probability_better)})."
    )


def _percent(probability: float) -> str:
    """A predicted probability; `over 99.9%` instead of 100.0%."""
    return "over 99.9%" if probability > 0.999 else f"{probability:.1%}"


def render(found: Findings, folder: Path) -> str:
    """The page."""
    return render_page(page_of(found, folder))


def page_of(found: Findings, folder: Path) -> Page:
    """What the page says."""
    fitted = found.fitted
    objective = fitted.objective.weights
    natural = "; ".join(f"{d} {w:.1%}" for d, w in _largest(fitted.natural))
    size = "" if _unsized(found) else f" Predicted at {fidelity_text(fitted.target)}."
    runs = len(set(fitted.table.runs.tolist()))
    return Page(
        name=folder.resolve().name,
        kind="mixopt fit",
        about=(
            f"Objective: {shortened(weighed(objective))}, {found.better} is better. Natural "
            f"mixture: {natural}. {runs} runs, {len(fitted.domains)} domains, "
            f"{len(fitted.metrics)} metrics.{size}"
        ),
        lead=[headline(found)],
        decision=_decision(found),
        answers=_answers(found, folder),
        sections=_sections(found),
        notes=found.notes,
        commands=[
            (
                "predict other mixtures",
                command("predict", folder, "--ratios", "R.csv", "--out", "P.csv"),
            ),
            (
                "the next mixtures to train",
                command("propose", folder, "-n", "16", "--out", "next.csv"),
            ),
        ],
        settings_title="Settings of this fit (fit.json)",
        settings=[
            ("mixopt", __version__),
            ("surrogate", fitted.surrogate_name),
            ("seed", str(fitted.seed)),
            ("fidelity", fidelity_text(fitted.target)),
            ("objective", " + ".join(f"{w:.4g} × {m}" for m, w in objective.items())),
        ],
    )


def shortened(text: str, most: int = 220) -> str:
    """A list without what a line does not hold."""
    if len(text) <= most:
        return text
    kept = text[:most].rsplit(", ", 1)[0]
    return f"{kept} and {text.count(', ') - kept.count(', ')} more"


def _unsized(found: Findings) -> bool:
    """Whether sizes of runs are not known."""
    return (found.fitted.target.params, found.fitted.target.tokens) == (1, 1)


def _largest(mixture: Mixture, most: int = 6) -> list[tuple[str, float]]:
    return sorted(mixture.as_dict().items(), key=lambda item: -item[1])[:most]


def _decision(found: Findings) -> str:
    if found.difference.probability_better >= SURE:
        return (
            "Decision: train the proposed mixture beside the natural one; nothing is measured yet."
        )
    return "Decision: train more mixtures first; the runs do not tell the proposed one apart."


def _answers(found: Findings, folder: Path) -> list[Answer]:
    """The five questions, of predictions."""
    base = found.fitted.natural.as_dict()
    weights = ", ".join(
        f"{d} {w:.1%} ({base[d]:.1%})" for d, w in _largest(found.best.mixture) if w >= 0.0005
    )
    gap, reach = found.difference.mean, NORMAL_90 * found.difference.std
    worse, gained, level = _sides(found)
    names = [title(n) for n in shown(found) if n not in (NATURAL, PROPOSED)]
    quality = "Predictions are not tested: too few runs to hold some out."
    if found.held_out is not None:
        score = found.held_out.scores[OBJECTIVE]
        ranked = with_ceiling(score.spearman, found.reliability.get(OBJECTIVE))
        quality = (
            f"Held-out runs: rank correlation {ranked}, {score.coverage:.0%} within "
            "the 90 % interval of a run."
        )
    return [
        Answer("What is proposed?", "The proposed mixture", f"{weights} (in brackets: natural)."),
        Answer(
            "By how much, and how surely?",
            f"{signed(gap)} predicted (90 % interval {signed(gap - reach)} to "
            f"{signed(gap + reach)})",
            f"Probability that it is {found.better} "
            f"{_percent(found.difference.probability_better)}. {quality}",
        ),
        Answer(
            "What does it cost in other metrics?",
            f"{len(worse)} of {len(found.fitted.metrics)} are predicted to get worse",
            f"Worse: {_named(worse)}; better: {_named(gained)}; not told apart: {_named(level)}.",
        ),
        Answer(
            "What was it compared with?",
            "The natural mixture" + (f", beside {', '.join(names)}" if names else ""),
            f"Predicted by {found.fitted.surrogate_name} from "
            f"{len(set(found.fitted.table.runs.tolist()))} finished runs; nothing was trained.",
        ),
        Answer(
            "What to run next?",
            "The next mixtures to train:",
            "Train them beside the natural mixture, with the same seeds.",
            command("propose", folder, "-n", "16", "--out", "next.csv"),
        ),
    ]


def _named(metrics: Sequence[str]) -> str:
    if not metrics:
        return "none"
    more = len(metrics) - NAMED
    return ", ".join(metrics[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _sides(found: Findings) -> tuple[list[str], list[str], list[str]]:
    """Metrics that are predicted worse, better, or not told apart, at 90 %.

    Errors at the two mixtures count as independent, which is cautious where they lie close.
    """
    rows = [list(found.mixtures).index(name) for name in (NATURAL, PROPOSED)]
    worse: list[str] = []
    gained: list[str] = []
    level: list[str] = []
    for j, metric in enumerate(found.fitted.metrics):
        sign = -1 if found.fitted.objective.weights.get(metric, 0) < 0 else 1
        change = sign * (found.means[rows[1], j] - found.means[rows[0], j])
        reach = NORMAL_90 * math.hypot(*(float(found.stds[row, j]) for row in rows))
        side = level if abs(change) <= reach else worse if change > 0 else gained
        side.append(metric)
    return worse, gained, level


def title(name: str) -> str:
    """A mixture's name with spaces."""
    return name.replace("_", " ")


def shown(found: Findings) -> dict[str, Mixture]:
    """The mixtures to show; the unconstrained one only where constraints bind."""
    hidden = () if found.constrained else (UNCONSTRAINED,)
    return {name: mix for name, mix in found.mixtures.items() if name not in hidden}


def _epochs(found: Findings, name: str, domain: int) -> str:
    space = found.fitted.space
    if not (space.available_tokens and space.budget_tokens):
        return ""
    tokens = space.available_tokens.get(space.domains[domain])
    if not tokens:
        return ""
    return f" ({found.mixtures[name].weights[domain] * space.budget_tokens / tokens:.2g}×)"


def _epochs_note(found: Findings) -> str:
    space = found.fitted.space
    if not (space.budget_tokens and space.available_tokens):
        return ""
    return f"In brackets: epochs over the domain in a run of {count(space.budget_tokens)} tokens."


def _remarks(found: Findings) -> list[str]:
    if not found.constrained:
        return []
    remarks = []
    if found.best.binding:
        remarks.append(f"Constraints that bind: {'; '.join(binding(found))}.")
    gap = found.best.mean - found.best.unconstrained_mean
    without = "Without constraints" + " and KL penalty" * (found.best.kl_penalty > 0)
    remarks.append(
        f"{without} the objective is predicted {abs(gap):.4f} {'lower' if gap >= 0 else 'higher'}."
    )
    return remarks


def binding(found: Findings) -> list[str]:
    """The constraints that bind, each with its cost in the objective where that is known."""
    prices = found.best.prices
    return [
        line + (f" (costs {prices[line]:.4f})" if prices.get(line) else "")
        for line in found.best.binding
    ]


def _mixture_table(found: Findings) -> Table:
    """Weights of all mixtures, the proposed one's largest first."""
    names = list(shown(found))
    order = np.argsort(-found.best.mixture.array, kind="stable").tolist()
    domains = found.fitted.domains
    rows: list[list[str | Cell]] = []
    for j in order:
        row: list[str | Cell] = [domains[j]]
        for name in names:
            weight = found.mixtures[name].weights[j]
            row.append(Cell(f"{weight:.1%}{_epochs(found, name, j)}", bar=weight))
        rows.append(row)
    return Table(
        ("domain", *map(title, names)),
        rows,
        _epochs_note(found),
        chosen=1 + names.index(PROPOSED),
    )


def _predicted_table(found: Findings) -> Table:
    """What is predicted of every metric on all mixtures."""
    names = list(shown(found))
    places = [list(found.mixtures).index(name) for name in names]
    labels = [*found.fitted.metrics, OBJECTIVE]
    order = [len(labels) - 1, *range(len(labels) - 1)]
    rows = [
        (
            labels[j],
            *(plus_minus(found.means[i, j], NORMAL_90 * found.stds[i, j]) for i in places),
        )
        for j in order
    ]
    return Table(
        ("metric", *(f"{title(name)}, predicted ± 90 %" for name in names)),
        rows,
        f"± half the 90 % interval of {found.interval_of}; {found.better} objectives are better.",
        chosen=1 + names.index(PROPOSED),
    )


def _sections(found: Findings) -> list[Section]:
    fitted = found.fitted
    higher = {m for m, w in fitted.objective.weights.items() if w < 0}
    higher |= {OBJECTIVE} if found.better == "higher" else set()
    reliable = reliability_rows(found.reliability)
    runs = "runs.parquet, the finished runs"
    return [
        Section("Mixtures", _remarks(found), [_mixture_table(found)], source="mixture.csv."),
        Section("Predictions", (), [_predicted_table(found)], source="fit.json."),
        Section(
            "Effects of domains",
            [
                f"By the surrogate {fitted.surrogate_name}, at the natural mixture. Intervals are "
                "too wide where it does not know that near mixtures err together."
            ],
            effect_table(found.effects, higher, fit_plots.short(fitted.metrics)),
            source="effects.csv.",
        ),
        _quality(found),
        Section(
            "Noise and reliability",
            tables=[Table(HEAD, reliable, NOTE)] if reliable else (),
            source=f"{runs} that repeat a mixture.",
        ),
    ]


def _quality(found: Findings) -> Section:
    quality = found.held_out
    if quality is None:
        text = "There are too few runs to hold some out, so the predictions are not tested."
        return Section("Quality of predictions", [text], _tables(found), source="diagnostics.csv.")
    names, known = found.held_out_names, found.reliability
    drawn = list(quality.metrics[:MOST_FIGURES])
    more = len(quality.metrics) - len(drawn)
    figures = [
        Figure(
            fit_plots.held_out(quality, None, names, "Objective", known),
            "A point per run, predicted by a fit that has not seen its mixture; upright lines are "
            "90 % intervals of one run. On the dashed line prediction and measurement agree.",
            "out_of_fold.csv",
            wide=True,
        )
    ]
    if len(quality.metrics) > 1:
        panels = fit_plots.held_out_panels(quality, drawn, names, fit_plots.short(drawn))
        caption = "As above, a panel per metric: measured to the right, predicted upwards."
        if more > 0:
            caption += f" The first {len(drawn)} of {len(quality.metrics)} metrics."
        figures.append(Figure(panels, caption, "out_of_fold.csv", wide=True))
    return Section(
        "Quality of predictions",
        ["Out-of-fold predictions: no run of the same mixture was fitted."],
        _tables(found),
        figures,
        warnings=off(quality.scores, "runs"),
        source="out_of_fold.csv, diagnostics.csv.",
    )


def aligned(values: Sequence[float]) -> list[str]:
    """Numbers of one column, with the decimals that the smallest needs for three digits.

    Numbers of very different sizes, such as a loss and a perplexity, have four digits each.
    """
    known = [abs(value) for value in values if math.isfinite(value) and value != 0]
    if not known:
        return [f"{value:.4f}" for value in values]
    decimals = max(4, 2 - math.floor(math.log10(min(known))))
    if decimals > 6 or max(known) >= 100:
        return [f"{value:.4g}" for value in values]
    return [f"{value:.{decimals}f}" for value in values]


def _tables(found: Findings) -> list[Table]:
    tables = []
    for title, scores in (
        ("metric", found.held_out.scores if found.held_out is not None else {}),
        ("surrogate, by the objective", found.compared),
    ):
        ordered = sorted(scores.items(), key=lambda item: item[0] != OBJECTIVE)
        errors = aligned([score.mae for _, score in ordered])
        rows = [
            (
                name
                + (
                    " (chosen)" if title != "metric" and name == found.fitted.surrogate_name else ""
                ),
                f"{score.spearman:.3f}",
                ceiling_of(found.of_compared if title != "metric" else found.reliability.get(name)),
                f"{score.r2:.3f}",
                error,
                f"{score.coverage:.0%}",
                str(score.n),
            )
            for (name, score), error in zip(ordered, errors, strict=True)
        ]
        if rows:
            tables.append(Table((title, *SCORES), rows, SCORES_NOTE if title == "metric" else ""))
    return tables
