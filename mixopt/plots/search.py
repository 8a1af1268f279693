"""Figures of a search: learning curves, and the best value by what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Trial
from mixopt.offline.best_so_far import Reference
from mixopt.plots import style
from mixopt.study.queries import best_trial, search_progress, search_trials


def learning_curves(
    curves: Mapping[str, Sequence[CurvePoint]],
    objective: Objective,
    *,
    highlight: Mapping[str, str] | None = None,
) -> go.Figure:
    """The objective while proxies train, a line per curve, on the same text all along it.

    Results that were measured on more text than the curve are not drawn: they do not compare.

    Args:
        curves: name → points; points without the objective's metrics are left out.
        objective: what is drawn.
        highlight: name of a curve → label; the others are drawn faint and share a legend entry.
    """
    figure = style.figure(
        "Learning curves", "training tokens", style.with_unit("objective", objective)
    )
    shown = highlight if highlight is not None else {name: name for name in curves}
    lines = {name: _line(points, objective) for name, points in curves.items()}
    faint = {name: line for name, line in lines.items() if name not in shown}
    if faint:  # one trace with gaps: 500 traces take a browser ten seconds
        figure.add_scatter(
            x=[x for line in faint.values() for x in (*line[0], None)],
            y=[y for line in faint.values() for y in (*line[1], None)],
            text=[name for name, line in faint.items() for _ in range(len(line[0]) + 1)],
            mode="lines",
            name="other trials",
            line={"color": style.FAINT, "width": 1},
            hovertemplate="%{text}<br>%{x} tokens: %{y:.4f}<extra></extra>",
        )
    for index, (name, label) in enumerate(shown.items()):
        x, y = lines.get(name, ((), ()))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            name=label,
            line={"color": style.colour(label, index), "width": 2.4},
            hovertemplate=f"{name}<br>%{{x}} tokens: %{{y:.4f}}<extra></extra>",
        )
    return figure


def _line(
    points: Sequence[CurvePoint], objective: Objective
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Tokens and objective of the points that compare with each other."""
    known = [p for p in points if all(m in p.comparable for m in objective.metrics)]
    shown = objective.shown
    return tuple(p.tokens for p in known), tuple(shown.value(p.comparable) for p in known)


def search_curves(
    trials: Sequence[Trial],
    points: Mapping[int, Sequence[CurvePoint]],
    objective: Objective,
    baselines: Mapping[str, Mixture] | None = None,
) -> go.Figure:
    """Learning curves of the search's complete and pruned trials.

    The trial with the least objective and the first one on each baseline are highlighted.

    Args:
        trials: of one study; selection's and those without a result are left out.
        points: number of a trial → its evaluations.
        objective: lower is better.
        baselines: by name, if they are known.
    """
    shown = [trial for trial in search_trials(trials) if trial.result is not None]
    highlight = {}
    if (best := best_trial(shown, objective)) is not None:
        highlight[f"trial {best.number}"] = "best observed"
    complete = [trial for trial in shown if trial.complete]
    for name, mixture in (baselines or {}).items():
        same = [trial for trial in complete if trial.spec.mixture.same_as(mixture)]
        if same:
            highlight.setdefault(f"trial {same[0].number}", name)
    curves = {f"trial {trial.number}": points.get(trial.number, ()) for trial in shown}
    return learning_curves(curves, objective, highlight=highlight)


def best_so_far(
    trials: Sequence[Trial],
    objective: Objective,
    against: str = "tokens",
    references: Mapping[str, Reference] | None = None,
) -> go.Figure:
    """Every trial of the search and the best one so far, against what they cost together.

    Args:
        trials: of one study; selection's and unfinished ones are left out, but what pruned ones of
            the search cost is counted.
        objective: lower is better.
        against: `tokens` or `device_seconds`.
        references: by name, other ways to search, against tokens.
    """
    cost = {"tokens": "training tokens", "device_seconds": "device-seconds"}[against]
    figure = style.figure(
        f"Search: best so far by {cost}", f"{cost} spent", style.with_unit("objective", objective)
    )
    steps = search_progress(trials, objective)
    for role, colour in style.ROLES.items():
        own = [step for step in steps if step.trial.spec.role is role]
        if own:
            figure.add_scatter(
                x=[getattr(step.spent, against) for step in own],
                y=[objective.sign * step.value for step in own],
                mode="markers",
                name=str(role),
                marker={"color": colour, "size": 8, "line": {"color": style.PAPER, "width": 1}},
                text=[f"trial {step.trial.number}" for step in own],
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            )
    for index, (name, line) in enumerate((references or {}).items()):
        _add_reference(figure, name, line, objective.sign, index)
    if steps:
        figure.add_scatter(
            x=[getattr(step.spent, against) for step in steps],
            y=[objective.sign * step.best for step in steps],
            mode="lines",
            name="best so far",
            line={"color": style.INK, "width": 2, "shape": "hv"},
            hoverinfo="skip",
        )
    return figure


def _add_reference(figure: go.Figure, name: str, line: Reference, sign: int, index: int) -> None:
    """A dashed median with a band from quartile to quartile."""
    colour = (style.ORANGE, style.PINK, style.GREEN)[index % 3]
    style.add_band(figure, line.cost, (sign * line.low, sign * line.high), colour, name)
    figure.add_scatter(
        x=line.cost,
        y=sign * line.median,
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": colour, "width": 2, "dash": "dash", "shape": "hv"},
        hovertemplate="%{x} tokens: %{y:.4f}<extra>" + name + "</extra>",
    )
