"""Figures of a study, from the library's own types.."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixopt.core.formatting import count
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Trial
from mixopt.plots import style
from mixopt.selection.paired import half_interval
from mixopt.selection.results import Candidate
from mixopt.study.queries import best_trial, search_progress, search_trials
from mixopt.study.results import Promotion


def mixture_bars(
    mixtures: Mapping[str, Mixture],
    *,
    available: Mapping[str, int] | None = None,
    budget: int | None = None,
) -> go.Figure:
    """Weights of several mixtures side by side, a group of bars per domain.

    Args:
        mixtures: name → mixture, drawn in this order.
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


def predicted_against_measured(
    measured: np.ndarray,
    predicted: np.ndarray,
    std: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    unit: str = style.BITS,
    scores: str = "",
) -> go.Figure:
    """How well the surrogate predicts trials that it was not fitted to.

    Args:
        measured: (n,) what the trials showed.
        predicted: (n,) out-of-fold predictions of the same trials.
        std: (n,) their standard deviations, of a new measurement; drawn as 90 % intervals.
        labels: (n,) a name for each trial.
        unit: of all three.
        scores: a line on the quality of fit, below the title.
    """
    figure = style.figure("Surrogate out of fold", f"measured ({unit})", f"predicted ({unit})")
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


def learning_curves(
    curves: Mapping[str, Sequence[CurvePoint]],
    objective: Objective,
    *,
    highlight: Mapping[str, str] | None = None,
) -> go.Figure:
    """The objective while proxies train, a line per curve, on the same text all along it.

    Where a training's result was measured on more text than its curve, a marker shows it.

    Args:
        curves: name → points; points without the objective's metrics are left out.
        objective: what is drawn.
        highlight: name of a curve → label; the others are drawn faint and share a legend entry.
    """
    figure = style.figure(
        "Learning curves", "training tokens", style.with_unit("objective", objective)
    )
    shown = highlight if highlight is not None else {name: name for name in curves}
    # highlighted ones last, so that they lie on top
    order = sorted(curves, key=lambda name: name in shown)
    faint = True
    for name in order:
        points = [p for p in curves[name] if all(m in p.metrics for m in objective.metrics)]
        bright = name in shown
        label = shown.get(name, "other trials")
        colour = style.colour(label, list(shown).index(name)) if bright else style.FAINT
        figure.add_scatter(
            x=[p.tokens for p in points],
            y=[objective.shown.value(p.comparable) for p in points],
            mode="lines+markers" if bright else "lines",
            name=label,
            line={"color": colour, "width": 2.4 if bright else 1},
            legendgroup=label,
            showlegend=bright or faint,
            hovertemplate=f"{name}<br>%{{x}} tokens: %{{y:.4f}}<extra></extra>",
        )
        faint = faint and bright
    results = {n: [p for p in curves[n] if p.on_curve_text] for n in order if n in shown}
    if any(results.values()):
        _add_results(figure, results, objective)
    return figure


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


def _add_results(
    figure: go.Figure, results: Mapping[str, Sequence[CurvePoint]], objective: Objective
) -> None:
    """Markers where the end was measured on more text; a line to them would show a jump."""
    ends = [(name, p) for name, points in results.items() for p in points]
    ends = [(n, p) for n, p in ends if all(m in p.metrics for m in objective.metrics)]
    figure.add_scatter(
        x=[p.tokens for _, p in ends],
        y=[objective.shown.value(p.metrics) for _, p in ends],
        mode="markers",
        name="final evaluation, on more text",
        marker={"color": style.INK, "size": 9, "symbol": "diamond-open"},
        text=[name for name, _ in ends],
        hovertemplate="%{text}<br>%{x} tokens: %{y:.4f}<extra>final, on more text</extra>",
    )


def best_so_far(
    trials: Sequence[Trial], objective: Objective, against: str = "tokens"
) -> go.Figure:
    """Every trial of the search and the best one so far, against what they cost together.

    Args:
        trials: of one study; selection's and unfinished ones are left out, but what pruned ones of
            the search cost is counted.
        objective: lower is better.
        against: `tokens` or `device_seconds`.
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
                marker={"color": colour, "size": 8, "line": {"color": "white", "width": 1}},
                text=[f"trial {step.trial.number}" for step in own],
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            )
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


def before_and_after(promotion: Promotion | None, *, proxy: str = "proxy, predicted") -> go.Figure:
    """Each domain's bits per byte: seed model, upcycled, trained, and a proxy's as predicted.

    Args:
        promotion: its metrics in bits per byte are drawn; None gives an empty figure.
        proxy: names what is predicted: it is not the promoted model.
    """
    figure = style.figure("Promoted model by validation domain", style.BITS, "")
    if promotion is None:
        return figure
    shown = {k: v for k, v in promotion.metrics.items() if k.startswith("bpb/")}
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


def _epochs(
    mixture: Mixture, available: Mapping[str, int] | None, budget: int | None
) -> list[float] | None:
    if not available or not budget or any(not available.get(d) for d in mixture.domains):
        return None
    return [w * budget / available[d] for d, w in mixture.as_dict().items()]


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
