"""Figures of mixtures: weights side by side, and what the objective does with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.plots import style


def mixture_bars(
    mixtures: Mapping[str, Mixture],
    *,
    available: Mapping[str, int] | None = None,
    budget: int | None = None,
) -> go.Figure:
    """Weights of several mixtures side by side, a group of bars per domain.

    Args:
        mixtures: name → mixture, in the order of the bars.
        available: training tokens of each domain, and
        budget: tokens of the run that the mixtures are for: with both, each bar tells how often
            that run would see the domain.
    """
    figure = style.figure("Mixtures: share of training tokens by domain", "", "weight")
    for index, (name, mixture) in enumerate(mixtures.items()):
        epochs = _epochs(mixture, available, budget)
        # below a tenth of an epoch nothing repeats, and the labels of many bars would overlap
        label = [f"{e:.2g}×" if e >= 0.1 else "" for e in epochs] if epochs else None
        hover = "%{x}: %{y:.1%}" + ("<br>%{text} its tokens" if epochs else "")
        figure.add_bar(
            x=[style.verbatim(domain) for domain in mixture.domains],
            y=mixture.weights,
            name=name,
            marker_color=style.colour(name, index),
            text=label,
            textposition="outside",
            textangle=0,
            constraintext="none",
            textfont={"size": 10},
            cliponaxis=False,
            hovertemplate=f"{hover}<extra>{name}</extra>",
        )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.06)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    if available and budget:
        style.note(figure, f"above the bars: epochs over the domain in {count(budget)} tokens")
    return figure


CLASSES = 5  # colours of lines by objective: more are not told apart
SHADES = ("#440154", "#3B528B", "#21918C", "#5EC962", "#C2B81A")  # Viridis, its end darkened


def tried(trials: Sequence[Trial], objective: Objective) -> go.Figure:
    """Where the search has been, and how good it was there.

    Three domains are shown in a triangle, more as parallel coordinates: a line per trial over its
    weights. The best trials lie on top.

    Args:
        trials: complete ones with a measured objective are shown.
        objective: colours them.
    """
    done = [(v, t) for t in trials if (v := objective.shown.of_trial(t)) is not None]
    # the worst first: they lie below
    done.sort(key=lambda pair: objective.sign * pair[0], reverse=True)
    domains = done[0][1].spec.mixture.domains if done else ()
    if len(domains) == 3:
        return _ternary(done, domains, objective)
    return _parallel(done, domains, objective)


def _ternary(
    done: Sequence[tuple[float, Trial]], domains: Sequence[str], objective: Objective
) -> go.Figure:
    figure = style.figure("Where the search has been", "", "")
    a, b, c = domains
    figure.add_scatterternary(
        a=[t.spec.mixture[a] for _, t in done],
        b=[t.spec.mixture[b] for _, t in done],
        c=[t.spec.mixture[c] for _, t in done],
        mode="markers",
        marker={
            "size": 9,
            "color": [value for value, _ in done],
            "colorscale": "Viridis",
            "reversescale": objective.sign == 1,
            "colorbar": {"title": style.with_unit("objective", objective), "thickness": 12},
        },
        text=[f"trial {t.number}: {value:.4f}" for value, t in done],
        hovertemplate="%{text}<br>%{a:.1%}, %{b:.1%}, %{c:.1%}<extra></extra>",
    )
    axis = {"tickformat": ".0%", "gridcolor": style.GRID, "linecolor": style.RULE, "nticks": 5}
    figure.update_layout(
        ternary={
            "bgcolor": style.PAPER,
            **{
                name: {**axis, "title": style.verbatim(domain)}
                for name, domain in zip(("aaxis", "baxis", "caxis"), domains, strict=True)
            },
        },
        height=460,
    )
    return figure


def _parallel(
    done: Sequence[tuple[float, Trial]], domains: Sequence[str], objective: Objective
) -> go.Figure:
    """Lines of SVG: plotly's own parallel coordinates need WebGL, and do not print."""
    figure = style.figure("Where the search has been", "", "weight")
    names = [style.verbatim(domain) for domain in domains]
    groups = np.array_split(np.arange(len(done)), CLASSES)
    for shade, rows in zip(SHADES, groups, strict=True):
        own = [done[row] for row in rows.tolist()]
        if not own:
            continue
        ends = sorted((own[0][0], own[-1][0]))
        figure.add_scatter(
            x=[name for _ in own for name in (*names, None)],
            y=[w for _, t in own for w in (*t.spec.mixture.weights, None)],
            text=[f"trial {t.number}: {v:.4f}" for v, t in own for _ in range(len(names) + 1)],
            mode="lines+markers",
            name=f"{ends[0]:.4g} to {ends[1]:.4g}",
            line={"color": shade, "width": 1.2},
            marker={"size": 4},
            opacity=0.35 + 0.65 * min(1.0, 24 / len(done)),
            hovertemplate="%{text}<br>%{x} %{y:.1%}<extra></extra>",
        )
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(type="category", showgrid=True, categoryarray=names, categoryorder="array")
    style.note(
        figure, f"colour: {style.with_unit('objective', objective)}, in fifths of the trials"
    )
    return figure


def objective_by_weight(trials: Sequence[Trial], objective: Objective) -> go.Figure:
    """The objective against each domain's weight, a small panel per domain."""
    done = [t for t in trials if objective.of_trial(t) is not None]
    domains = done[0].spec.mixture.domains if done else ()
    columns = min(3, max(1, len(domains)))
    lines = max(1, -(-len(domains) // columns))
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[style.verbatim(domain) for domain in domains],
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / lines,
    )
    for index, domain in enumerate(domains):
        row, column = divmod(index, columns)
        for role, colour in style.ROLES.items():
            rows = [t for t in done if t.spec.role is role]
            if rows:
                figure.add_scatter(
                    x=[t.spec.mixture[domain] for t in rows],
                    y=[objective.shown.of_trial(t) for t in rows],
                    mode="markers",
                    marker={"color": colour, "size": 7},
                    name=str(role),
                    legendgroup=str(role),
                    showlegend=index == 0,
                    text=[f"trial {t.number}" for t in rows],
                    hovertemplate="%{text}<br>weight %{x:.1%}: %{y:.4f}<extra></extra>",
                    row=row + 1,
                    col=column + 1,
                )
    figure.update_layout(
        template=style.TEMPLATE,
        title="Objective against each domain's weight",
        height=150 + 200 * lines,
        margin={"t": 76},
    )
    figure.update_xaxes(tickformat=".0%", nticks=4, tickangle=0, rangemode="tozero")
    figure.update_yaxes(title=style.with_unit("objective", objective), col=1)
    figure.update_annotations(font_size=12)
    return figure


def _epochs(
    mixture: Mixture, available: Mapping[str, int] | None, budget: int | None
) -> list[float] | None:
    if not available or not budget or any(not available.get(d) for d in mixture.domains):
        return None
    return [w * budget / available[d] for d, w in mixture.as_dict().items()]
