"""Figures of a surrogate: how well it predicts what it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from mixopt.core.intervals import NORMAL_90
from mixopt.plots import style


def predicted_against_measured(
    measured: np.ndarray,
    predicted: np.ndarray,
    std: np.ndarray,
    *,
    unit: str,
    labels: Sequence[str] | None = None,
    scores: str = "",
) -> go.Figure:
    """How well the surrogate predicts trials that it was not fitted to.

    Args:
        measured: (n,) what the trials showed.
        predicted: (n,) out-of-fold predictions of the same trials.
        std: (n,) their standard deviations, of a new measurement; drawn as 90 % intervals.
        unit: of all three; may be empty.
        labels: (n,) a name for each trial.
        scores: a line on the quality of fit, below the title.
    """
    measure = f" ({unit})" if unit else ""
    figure = style.figure("Surrogate out of fold", f"measured{measure}", f"predicted{measure}")
    known = np.isfinite(measured) & np.isfinite(predicted)
    x, y, spread = measured[known], predicted[known], NORMAL_90 * np.nan_to_num(std[known])
    if len(x):
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", name="exact", line={"color": style.GREY, "dash": "dash"}
        )
    names = [labels[int(i)] for i in np.flatnonzero(known)] if labels is not None else None
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name="with the 90 % interval of a run",
        marker={"size": 8, "color": style.BLUE},
        error_y={"array": spread, "color": style.SKY, "thickness": 1.2, "width": 2},
        text=names,
        hovertemplate="%{text}<br>measured %{x:.4f}<br>predicted %{y:.4f}<extra></extra>",
    )
    if scores:
        style.note(figure, scores)
    return figure
