"""Figures of a promotion: domains before and after, what experts read, and the baseline's run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from mixopt.plots import style
from mixopt.study.results import Promotion
from mixopt.study.watched import Compared


def before_and_after(promotion: Promotion | None, *, proxy: str = "proxy, predicted") -> go.Figure:
    """Each domain's bits per byte: seed model, upcycled, trained, and a proxy's as predicted.

    Of a trainer of the user's, which has metrics of its own, each of them.

    Args:
        promotion: what is drawn; None gives an empty figure.
        proxy: names what is predicted: it is not the promoted model.
    """
    own = promotion is not None and not promotion.upcycled
    by, measure = ("metric", "") if own else ("validation domain", style.BITS)
    figure = style.figure(f"Promoted model by {by}", measure, "")
    if promotion is None:
        return figure
    shown = {k: v for k, v in promotion.metrics.items() if own or k.startswith("bpb/")}
    order = sorted(shown, key=shown.__getitem__)
    before, after = promotion.before, promotion.after
    for name in order:
        if name in before and name in after:
            figure.add_scatter(
                x=[before[name], after[name]],
                y=[_metric_label(name)] * 2,
                mode="lines",
                line={"color": style.FAINT, "width": 3},
                showlegend=False,
                hoverinfo="skip",
            )
    stages = (
        ("seed model", promotion.seed, style.GREY, "circle-open"),
        ("upcycled, untrained", before, style.ORANGE, "circle"),
        ("trained on the mixture", after, style.BLUE, "circle"),
    )
    for label, values, colour, symbol in stages:
        names = [n for n in order if n in values]
        if names:
            figure.add_scatter(
                x=[values[n] for n in names],
                y=[_metric_label(n) for n in names],
                mode="markers",
                name=label,
                marker={"color": colour, "size": 11, "symbol": symbol, "line": {"width": 2}},
                hovertemplate="%{y}: %{x:.4f}<extra>" + label + "</extra>",
            )
    predicted = promotion.predicted
    names = [n for n in order if n in predicted]
    if names:
        figure.add_scatter(
            x=[predicted[n].mean for n in names],
            y=[_metric_label(n) for n in names],
            mode="markers",
            name=f"{proxy}, 90 % interval of a run",
            marker={"color": style.INK, "size": 9, "symbol": "diamond-open"},
            error_x={
                "array": [predicted[n].half for n in names],
                "color": style.INK,
                "width": 4,
            },
            hovertemplate="%{y}: %{x:.4f}<extra>proxy, predicted</extra>",
        )
    figure.update_yaxes(type="category", categoryorder="array")
    figure.update_yaxes(categoryarray=[_metric_label(n) for n in reversed(order)])
    figure.update_layout(height=max(320, 170 + 34 * len(order)))
    return figure


def _metric_label(metric: str) -> str:
    return style.verbatim(metric.removeprefix("bpb/"))


def expert_loads(
    loads: Mapping[str, Sequence[float]], expert_names: Sequence[str] | None = None
) -> go.Figure:
    """Which expert reads which domain: share of each domain's tokens that an expert receives.

    Args:
        loads: domain → share of assignments per expert; each row sums to 1.
        expert_names: names of the experts, in order.
    """
    width = max((len(row) for row in loads.values()), default=0)
    given = list(expert_names or [])
    names = [given[i] if i < len(given) else f"expert {i}" for i in range(width)]
    shares = [[*row, *[math.nan] * (width - len(row))] for row in loads.values()]
    figure = style.figure("Expert loads by domain", "expert", "tokens of")
    figure.add_heatmap(
        z=shares,
        x=names,
        y=[style.verbatim(domain) for domain in loads],
        zmin=0,
        colorscale="Viridis",
        text=[[f"{share:.0%}" for share in row] for row in shares],
        texttemplate="%{text}",
        colorbar={"title": "share", "tickformat": ".0%", "thickness": 12},
        hovertemplate="%{y} → %{x}: %{z:.1%}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_layout(height=max(280, 150 + 36 * len(loads)))
    return figure


def difference_to_baseline(rows: Sequence[Compared], unit: str = "") -> go.Figure:
    """The full run's difference to the baseline's, evaluation by evaluation, over its band.

    Args:
        rows: evaluations, oldest first.
        unit: of the objective.
    """
    title = "Difference to the baseline's full run"
    figure = style.figure(title, "tokens", f"objective − baseline's{f' ({unit})' if unit else ''}")
    band = [(row.tokens, row.low, row.high) for row in rows if row.low is not None]
    if band:
        tokens, low, high = (np.array(column, dtype=float) for column in zip(*band, strict=True))
        style.add_band(figure, tokens, (low, high), style.GREY, "expected", "linear")
        figure.add_scatter(
            x=tokens,
            y=(low + high) / 2,
            mode="lines",
            name="expected from pairs of seeds, 95 % for one more",
            line={"color": style.GREY, "dash": "dash"},
            legendgroup="expected",
            hoverinfo="skip",
        )
    if rows:
        figure.add_scatter(
            x=[row.tokens for row in rows],
            y=[row.difference for row in rows],
            mode="lines+markers",
            name="full run",
            line={"color": style.BLUE},
            hovertemplate="%{x:,} tokens: %{y:+.4f}<extra>full run</extra>",
        )
        figure.add_hline(y=0, line={"color": style.FAINT})
    return figure
