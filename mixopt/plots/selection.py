"""Figures of a selection: candidates over equal seeds, and two metrics at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from mixopt.core.objective import Objective
from mixopt.plots import style
from mixopt.selection.paired import half_interval
from mixopt.selection.results import Candidate


def candidates(measured: Sequence[Candidate], objective: Objective) -> go.Figure:
    """Selection: every seed of every candidate, its mean with a 90 % interval, and its prediction.

    The interval is Student's, from the scatter of the candidate's own seeds; none with fewer than
    two.

    Args:
        measured: of a verdict; those without a finished seed are not drawn.
        objective: for the unit.
    """
    figure = style.figure(
        "Selection: candidates over the same fresh seeds",
        style.with_unit("objective", objective),
        "",
    )
    rows = [each.turned(objective.sign) for each in measured if each.mean is not None]
    for index, candidate in enumerate(rows):
        name, values = candidate.name, list(candidate.values)
        colour = style.colour(name, index)
        figure.add_scatter(
            x=values,
            y=[name] * len(values),
            mode="markers",
            marker={"color": colour, "size": 9, "opacity": 0.55},
            name="one seed",
            legendgroup="seed",
            showlegend=index == 0,
            hovertemplate="%{x:.4f}<extra>one seed</extra>",
        )
        reach = half_interval(np.array(values))
        known = math.isfinite(reach)
        figure.add_scatter(
            x=[candidate.mean],
            y=[name],
            mode="markers",
            marker={"color": colour, "size": 15, "symbol": "line-ns", "line": {"width": 3}},
            marker_line_color=colour,
            error_x={
                "array": [reach if known else 0.0],
                "color": colour,
                "thickness": 2.5,
                "width": 6,
            },
            name="mean, 90 % interval",
            legendgroup="mean",
            showlegend=index == 0,
            hovertemplate="%{x:.4f}"
            + (f" ± {reach:.4f} (90 %)" if known else "")
            + "<extra>mean</extra>",
        )
        if candidate.predicted is not None:
            figure.add_scatter(
                x=[candidate.predicted.mean],
                y=[name],
                mode="markers",
                marker={"color": style.INK, "size": 10, "symbol": "diamond-open"},
                error_x={
                    "array": [candidate.predicted.half],
                    "color": style.INK,
                    "thickness": 1,
                    "width": 4,
                },
                name="predicted before, 90 % interval",
                legendgroup="predicted",
                showlegend=index == 0,
                hovertemplate="%{x:.4f}<extra>predicted before</extra>",
            )
    figure.update_yaxes(autorange="reversed", categoryorder="array", type="category")
    figure.update_layout(height=max(300, 160 + 56 * len(rows)))
    return figure


def trade_off(
    values: np.ndarray,
    front: np.ndarray,
    metrics: tuple[str, str],
    *,
    labels: Sequence[str] | None = None,
) -> go.Figure:
    """Two metrics of every trial against each other, and the trials that none beats in both.

    Args:
        values: (n, 2) what the trials measured.
        front: (n,) whether no other trial is better in both.
        metrics: names of the two.
        labels: (n,) a name for each trial.
    """
    figure = style.figure("What can be had of two metrics at once", *metrics)
    order = np.flatnonzero(front)[np.argsort(values[front, 0])]
    others = np.flatnonzero(~front)
    for name, rows, colour, mode in (
        ("other trials", others, style.GREY, "markers"),
        ("none is better in both", order, style.BLUE, "lines+markers"),
    ):
        figure.add_scatter(
            x=values[rows, 0],
            y=values[rows, 1],
            mode=mode,
            name=name,
            marker={"size": 8, "color": colour},
            line={"color": colour, "width": 1.2, "dash": "dot"},
            text=None if labels is None else [labels[row] for row in rows.tolist()],
            hovertemplate="%{text}<br>%{x:.4f}, %{y:.4f}<extra></extra>",
        )
    return figure
