"""Figures of replayed searches, in the style of all others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixopt.offline.replay_summary import Curve
from mixopt.plots import style


def regret_by_cost(
    recommended: Mapping[str, Curve], trained: Mapping[str, Curve], cost_unit: str
) -> go.Figure:
    """Median and quartiles of regret by cost, of the recommended and the best trained mixture.

    Args:
        recommended: proposer → curve.
        trained: proposer → curve, of the same proposers.
        cost_unit: unit of costs, for the axis.
    """
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=("recommended mixture", "best trained mixture"),
    )
    figure.update_layout(
        template=style.TEMPLATE, title="Regret of each proposer by cost", height=460
    )
    for column, curves in ((1, recommended), (2, trained)):
        for index, (name, curve) in enumerate(curves.items()):
            known = np.isfinite(curve.median)
            colour = style.PALETTE[index % len(style.PALETTE)]
            cost = curve.cost[known]
            edges = (curve.high[known], curve.low[known])
            style.add_band(figure, cost, edges, colour, name, row=1, col=column)
            figure.add_scatter(
                x=cost,
                y=curve.median[known],
                customdata=curve.mean[known],
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                line={"color": colour, "width": 2, "shape": "hv"},
                mode="lines",
                hovertemplate="cost %{x:.4g}: median %{y:.4g}, mean %{customdata:.4g}"
                f"<extra>{name}</extra>",
                row=1,
                col=column,
            )
    figure.update_xaxes(title=f"cost ({cost_unit})", matches="x")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="regret", col=1)
    style.note(figure, "median and quartiles over seeds")
    figure.update_layout(margin={"t": 104})
    return figure
