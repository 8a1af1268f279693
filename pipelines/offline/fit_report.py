"""`report.html` of a fit: one page that needs no network, with a study report's template."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixopt import __version__
from mixopt.core.formatting import count, plus_minus
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.offline.fidelity_words import fidelity_text
from mixopt.pipelines.offline.findings import NATURAL, PROPOSED, UNCONSTRAINED, Findings
from mixopt.pipelines.views.reliability import HEAD, NOTE, ceiling_of, reliability_rows
from mixopt.pipelines.views.report import TEMPLATE, Column, Section, Table
from mixopt.plots import fit as fit_plots
from mixopt.plots import study as plots
from mixopt.surrogates.reliability import with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_FIGURES = 24  # metrics that get a figure of their own


def headline(found: Findings) -> str:
    """One sentence: the difference of the objective to the natural mixture, with intervals."""
    rows = [list(found.mixtures).index(name) for name in (NATURAL, PROPOSED)]
    means, stds = found.means[rows, -1], NORMAL_90 * found.stds[rows, -1]
    gap, spread = found.difference.mean, NORMAL_90 * found.difference.std
    return (
        f"Predicted objective {plus_minus(abs(gap), spread)} {'lower' if gap <= 0 else 'higher'} "
        f"at the proposed mixture than at the natural one: {plus_minus(means[1], stds[1])} against "
        f"{plus_minus(means[0], stds[0])} (± half the 90 % interval of {found.interval_of}; "
        f"probability that it is lower {_percent(found.difference.probability_lower)})."
    )


def _percent(probability: float) -> str:
    """A predicted probability; `over 99.9%` instead of 100.0%."""
    return "over 99.9%" if probability > 0.999 else f"{probability:.1%}"


def render(found: Findings, folder: Path) -> str:
    """The page, with plotly's code in it once."""
    import jinja2
    from plotly.offline import get_plotlyjs

    # autoescape: names of domains, metrics and runs are not ours
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    fitted = found.fitted
    return environment.from_string(TEMPLATE.read_text()).render(
        name=folder.resolve().name,
        kind="mixopt fit",
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        headline=headline(found),
        facts=_facts(found),
        columns=[
            Column(title(name), mixture, chosen=name == PROPOSED)
            for name, mixture in shown(found).items()
        ],
        rows=_rows(found),
        table_note=_table_note(found),
        remarks=_remarks(found),
        sections=_sections(found),
        failures=[],
        notes=found.notes,
        commands=[
            ("predict other mixtures", f"mixopt predict {folder} --ratios R.csv --out P.csv"),
            ("the next mixtures to train", f"mixopt propose {folder} -n 16 --out next.csv"),
        ],
        settings_title="Settings of this fit",
        settings=[
            ("mixopt", __version__),
            ("surrogate", fitted.surrogate_name),
            ("seed", str(fitted.seed)),
            ("fidelity", fidelity_text(fitted.target)),
            (
                "objective",
                " + ".join(f"{w:.4g} × {m}" for m, w in fitted.objective.weights.items()),
            ),
        ],
        plotly=get_plotlyjs(),
    )


def _facts(found: Findings) -> list[tuple[str, str]]:
    fitted = found.fitted
    facts = [
        ("runs", count(len(set(fitted.table.runs.tolist())))),
        ("domains", str(len(fitted.domains))),
        ("metrics", str(len(fitted.metrics))),
        ("surrogate", fitted.surrogate_name),
    ]
    if (fitted.target.params, fitted.target.tokens) != (1, 1):
        facts.append(("predicted fidelity", fidelity_text(fitted.target)))
    if found.held_out is not None:
        score = found.held_out.scores[OBJECTIVE]
        ranked = with_ceiling(score.spearman, found.reliability.get(OBJECTIVE), digits=3)
        facts.append(("held-out rank correlation", ranked))
        facts.append(("held-out within 90 % interval", f"{score.coverage:.0%}"))
    return facts


def title(name: str) -> str:
    """A mixture's name with spaces."""
    return name.replace("_", " ")


def shown(found: Findings) -> dict[str, Mixture]:
    """The mixtures to show; the unconstrained one only where constraints bind."""
    hidden = () if found.constrained else (UNCONSTRAINED,)
    return {name: mix for name, mix in found.mixtures.items() if name not in hidden}


def _rows(found: Findings) -> list[list[dict[str, object]]]:
    names = list(shown(found))
    places = [list(found.mixtures).index(name) for name in names]
    order = np.argsort(-found.best.mixture.array, kind="stable").tolist()
    domains = found.fitted.domains
    weights = [
        {
            "label": domains[j],
            "cells": [f"{found.mixtures[n].weights[j]:.1%}{_epochs(found, n, j)}" for n in names],
        }
        for j in order
    ]
    labels = [*found.fitted.metrics, OBJECTIVE]
    predicted = [
        {
            "label": f"{label}, predicted" if label == OBJECTIVE else label,
            "cells": [plus_minus(found.means[i, j], NORMAL_90 * found.stds[i, j]) for i in places],
        }
        for j, label in enumerate(labels)
    ]
    return [weights, [predicted[-1]], predicted[:-1]]


def _epochs(found: Findings, name: str, domain: int) -> str:
    space = found.fitted.space
    if not (space.available_tokens and space.budget_tokens):
        return ""
    tokens = space.available_tokens.get(space.domains[domain])
    if not tokens:
        return ""
    return f" ({found.mixtures[name].weights[domain] * space.budget_tokens / tokens:.2g}×)"


def _table_note(found: Findings) -> str:
    note = (
        f"Predictions ± half the 90 % interval of {found.interval_of}; lower objectives are better."
    )
    budget = found.fitted.space.budget_tokens
    if budget and found.fitted.space.available_tokens:
        note += f" In brackets: epochs over the domain in a run of {count(budget)} tokens."
    return note


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


def _sections(found: Findings) -> list[Section]:
    fitted, space = found.fitted, found.fitted.space
    quality = found.held_out
    bars = plots.mixture_bars(
        {title(name): mixture for name, mixture in shown(found).items()},
        available=space.available_tokens,
        budget=space.budget_tokens,
    )
    spread = np.append(
        np.nanstd(fitted.table.values, axis=0), _std(fitted.objective.of_table(fitted.table))
    )
    better = [1.0 if fitted.objective.weights.get(m, 0) < 0 else -1.0 for m in fitted.metrics]
    effects = fit_plots.effect_map(found.effects, spread, np.array([*better, -1.0]))
    sections = [
        Section("Weights", figures=_html([bars])),
        Section("Effects", figures=_html([effects])),
    ]
    text = "Out-of-fold predictions: no run of the same mixture was fitted."
    figures = []
    if quality is not None:
        names, known = found.held_out_names, found.reliability
        figures.append(fit_plots.held_out(quality, None, names, "objective", known))
        figures += [
            fit_plots.held_out(quality, metric, names, metric, known)
            for metric in quality.metrics[:MOST_FIGURES]
        ]
        more = len(quality.metrics) - MOST_FIGURES
        text += f" Figures of the first {MOST_FIGURES} of {len(quality.metrics)} metrics." * (
            more > 0
        )
    else:
        text = "There are too few runs to hold some out, so the predictions are not tested."
    if rows := reliability_rows(found.reliability):
        sections.append(Section("Reliability", NOTE, [Table(HEAD, rows)]))
    sections.append(Section("Quality of predictions", text, _tables(found), _html(figures)))
    return sections


def _std(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std()) if len(known) else 0.0


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
    heads = (
        "rank correlation",
        "ceiling",
        "R²",
        "mean error",
        "within the 90 % interval of a run",
        "runs",
    )
    tables = []
    for title, scores in (
        ("", found.held_out.scores if found.held_out is not None else {}),
        ("surrogate, by the objective", found.compared),
    ):
        ordered = sorted(scores.items(), key=lambda item: item[0] != OBJECTIVE)
        errors = aligned([score.mae for _, score in ordered])
        rows = [
            (
                name + (" (chosen)" if title and name == found.fitted.surrogate_name else ""),
                f"{score.spearman:.3f}",
                ceiling_of(found.of_compared if title else found.reliability.get(name)),
                f"{score.r2:.3f}",
                error,
                f"{score.coverage:.0%}",
                str(score.n),
            )
            for (name, score), error in zip(ordered, errors, strict=True)
        ]
        if rows:
            tables.append(Table((title, *heads), rows))
    return tables


def _html(figures: Sequence[go.Figure]) -> list[str]:
    show = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return [f.to_html(full_html=False, include_plotlyjs=False, config=show) for f in figures]
