"""Figures of a fit to finished runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixopt.core.intervals import NORMAL_90
from mixopt.plots import style
from mixopt.plots.surrogate import predicted_against_measured
from mixopt.surrogates.effects import Effects
from mixopt.surrogates.reliability import Reliability, with_ceiling
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold, Score

MOST_POINTS = 600  # per figure: more slow the page down
MOST_IN_PANEL = 150  # points of a small panel
PANELS = 4  # beside each other


def held_out(
    quality: OutOfFold,
    metric: str | None,
    names: Sequence[str],
    title: str,
    reliability: Mapping[str, Reliability],
) -> go.Figure:
    """Out-of-fold predictions against measured values.

    Args:
        quality: the predictions.
        metric: its name; None for the objective.
        names: (n,) of the runs.
        title: of the figure.
        reliability: by metric and of `objective`, as far as it is known.
    """
    if metric is None:
        columns = (quality.objective_observed, quality.objective_mean, quality.objective_std)
        score = quality.scores[OBJECTIVE]
    else:
        j = quality.metrics.index(metric)
        columns = (quality.observed[:, j], quality.mean[:, j], quality.std[:, j])
        score = quality.scores[metric]
    known = np.flatnonzero(np.isfinite(columns[0]) & np.isfinite(columns[1]))
    shown = known[np.linspace(0, len(known) - 1, min(len(known), MOST_POINTS)).astype(int)]
    figure = predicted_against_measured(
        *(column[shown] for column in columns),
        labels=[style.verbatim(names[row]) for row in shown.tolist()],
        unit="objective" if metric is None else "metric",
        scores=score_line(score, reliability.get(metric or OBJECTIVE)),
    )
    figure.layout.title.text = style.verbatim(title)
    figure.update_xaxes(title="measured")
    figure.update_yaxes(title="out-of-fold prediction")
    return figure


def held_out_panels(
    quality: OutOfFold, metrics: Sequence[str], names: Sequence[str], labels: Sequence[str]
) -> go.Figure:
    """Out-of-fold predictions against measured values, a small panel per metric.

    Args:
        quality: the predictions.
        metrics: those to draw, of the quality's.
        names: (n,) of the runs.
        labels: titles of the panels.
    """
    columns = min(PANELS, max(1, len(metrics)))
    lines = max(1, -(-len(metrics) // columns))
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=[style.verbatim(label) for label in labels],
        horizontal_spacing=0.06,
        vertical_spacing=0.32 / lines,
    )
    for index, metric in enumerate(metrics):
        j = quality.metrics.index(metric)
        x, y, std = quality.observed[:, j], quality.mean[:, j], quality.std[:, j]
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        known = known[np.linspace(0, len(known) - 1, min(len(known), MOST_IN_PANEL)).astype(int)]
        at = {"row": index // columns + 1, "col": index % columns + 1}
        if not len(known):
            continue
        ends = [
            float(min(x[known].min(), y[known].min())),
            float(max(x[known].max(), y[known].max())),
        ]
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            line={"color": style.GREY, "dash": "dash", "width": 1},
            showlegend=False,
            hoverinfo="skip",
            **at,
        )
        figure.add_scatter(
            x=x[known],
            y=y[known],
            mode="markers",
            marker={"size": 4, "color": style.BLUE},
            error_y={
                "array": NORMAL_90 * np.nan_to_num(std[known]),
                "color": style.SKY,
                "thickness": 0.7,
                "width": 0,
            },
            text=[style.verbatim(names[row]) for row in known.tolist()],
            hovertemplate="%{text}<br>measured %{x:.4f}<br>predicted %{y:.4f}<extra></extra>",
            showlegend=False,
            **at,
        )
    figure.update_layout(
        template=style.TEMPLATE,
        title="Each metric: predicted out of fold against measured",
        height=60 + 190 * lines,
        margin={"b": 40},
    )
    figure.update_xaxes(nticks=4, tickangle=0, tickfont={"size": 10})
    figure.update_yaxes(nticks=4, tickfont={"size": 10})
    figure.update_annotations(font_size=12)
    return figure


def score_line(score: Score, of: Reliability | None) -> str:
    """A held-out score in one line, with the ceiling of its rank correlation."""
    return (
        f"{score.n} runs: rank correlation {with_ceiling(score.spearman, of)}, R² {score.r2:.2f}, "
        f"{score.coverage:.0%} within the 90 % interval of a run"
    )


def short(names: Sequence[str]) -> list[str]:
    """`names` without the words that all of them begin and end with, for short labels."""
    words = [re.split(r"(?<=[/_.:])|(?=[/_.:])", name) for name in names]
    least = min((len(parts) for parts in words), default=1) - 1
    if len(set(names)) < 2:
        return list(names)
    head = next((i for i in range(least) if len({parts[i] for parts in words}) > 1), least)
    rest = least - head
    tail = next((i for i in range(rest) if len({parts[-1 - i] for parts in words}) > 1), rest)
    found = ["".join(parts[head : len(parts) - tail]).strip("/_.:") for parts in words]
    return found if all(found) and len(set(found)) == len(set(names)) else list(names)


def effect_map(effects: Effects, spread: np.ndarray, better: np.ndarray) -> go.Figure:
    """Domain x metric: the effect of 5 points more of a domain, in units of each metric's spread.

    Blue is an improvement, orange a harm. Changes below two of their standard deviations have no
    number.

    Args:
        effects: the changes.
        spread: (q + 1,) standard deviation of each metric over the runs.
        better: (q + 1,) -1 where lower is better, 1 where higher is.
    """
    scale = np.where(spread > 0, spread, np.inf)
    shown = effects.change / scale * better
    order = np.argsort(-shown[:, -1], kind="stable")  # the best for the objective on top
    resolved = np.abs(effects.change) > 2 * effects.std
    text = np.where(
        resolved & (np.abs(shown) >= 0.01), np.char.mod("%+.2f", effects.change / scale), ""
    )
    figure = style.figure("Effect of more of a domain", "", "")
    most = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 1.0
    figure.add_heatmap(
        z=shown[order],
        x=[style.verbatim(name) for name in (*short(effects.metrics[:-1]), effects.metrics[-1])],
        y=[style.verbatim(short(effects.domains)[row]) for row in order],
        text=text[order] if len(effects.metrics) <= 24 else None,
        texttemplate="%{text}" if len(effects.metrics) <= 24 else None,
        textfont={"size": 10},
        customdata=np.dstack([effects.change, effects.std])[order],
        hovertemplate="%{y} → %{x}<br>%{customdata[0]:+.4g}, standard deviation "
        "%{customdata[1]:.2g}<extra></extra>",
        colorscale=[[0, style.ORANGE], [0.5, style.PAPER], [1, style.BLUE]],
        zmin=-most or -1.0,
        zmax=most or 1.0,
        colorbar={"title": "better →", "thickness": 12},
        xgap=1,
        ygap=1,
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=40)
    figure.update_layout(height=220 + 24 * len(effects.domains))
    style.note(
        figure,
        "+5 points of a domain at the natural mixture, the others reduced in proportion; "
        "unit: standard deviation of the metric over the runs",
    )
    return figure
