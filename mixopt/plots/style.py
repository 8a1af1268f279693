"""The style of every figure.

Colours are Okabe and Ito's, distinct for colour-blind readers and in greyscale print. The natural
mixture is grey and the proposed one blue in every figure.
"""

from __future__ import annotations

import html

import plotly.graph_objects as go

from mixopt.core.objective import Objective
from mixopt.core.trials import Role

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PINK, SKY, RUST, YELLOW = "#CC79A7", "#56B4E9", "#D55E00", "#B79F00"
GREY, INK, FAINT = "#8A8F98", "#1F2933", "#CBD2D9"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RUST, YELLOW)
NAMED = {
    **dict.fromkeys(("found", "proposed"), BLUE),
    "natural": GREY,
    "uniform": ORANGE,
    "best observed": GREEN,
}
ROLES = {
    Role.DESIGN: GREY,
    Role.REPEAT: YELLOW,
    Role.ENQUEUED: PINK,
    Role.SEARCH: BLUE,
    Role.HOLDOUT: SKY,
    Role.SELECT: GREEN,
    Role.TRANSFER: RUST,
}
BITS = "bits per byte"

_AXIS = {
    "gridcolor": "#E8EBEF",
    "linecolor": "#C5CBD3",
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "tickcolor": "#C5CBD3",
    "automargin": True,
    "title": {"font": {"size": 13, "color": "#52606D"}, "standoff": 8},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, Segoe UI, sans-serif", "color": INK},
        "title": {
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14, "l": 8},
            "font": {"size": 15},
        },
        "colorway": PALETTE,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        # below the axis, from the figure's lower edge up: wraps without covering anything
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        "margin": {"l": 60, "r": 16, "t": 56, "b": 96},
        "hoverlabel": {"bgcolor": "white", "font": {"size": 12}},
        "colorscale": {"sequential": "Viridis"},
    }
)


def figure(title: str, x: str, y: str) -> go.Figure:
    """An empty figure in our style, its axes named."""
    figure = go.Figure(layout={"template": TEMPLATE, "title": title, "height": 400})
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def verbatim(text: str) -> str:
    """A foreign name as a label, escaped: Plotly interprets `<b>`."""
    return html.escape(text, quote=False)


def note(figure: go.Figure, text: str) -> None:
    """A line below the title of `figure`."""
    figure.update_layout(
        title={"subtitle": {"text": text, "font": {"size": 12, "color": "#52606D"}}}
    )
    figure.update_layout(margin={"t": 76})


def colour(name: str, index: int) -> str:
    """The colour of a mixture: its own if it is a well-known one, else the next free one."""
    rest = [c for c in PALETTE if c not in NAMED.values()]
    return NAMED.get(name, rest[index % len(rest)])


def with_unit(label: str, objective: Objective) -> str:
    """`label` with the objective's unit, where it has one, and where higher is better."""
    if all(name.startswith("bpb/") and w > 0 for name, w in objective.weights.items()):
        return f"{label} ({BITS})"
    names = list(objective.weights)
    known = [verbatim(names[0])] if len(names) == 1 else []
    direction = ["higher is better"] if objective.sign == -1 else []
    return f"{label} ({', '.join([*known, *direction])})" if known or direction else label
