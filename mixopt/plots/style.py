"""The style of every figure.

Colours are Okabe and Ito's, distinct for colour-blind readers and in greyscale print. The natural
mixture is grey and the proposed one blue in every figure.
"""

from __future__ import annotations

import html

import numpy as np
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
BAND = 0.15  # opacity of a band between quartiles
HEIGHT = 400  # px of a figure that asks for no other
PAPER, SOFT, GRID, RULE = "#FFFFFF", "#52606D", "#E8EBEF", "#C5CBD3"
DARK = {  # colour on white paper → on a dark page; all others stay
    PAPER: "#1A2027",
    INK: "#E4E8EE",
    SOFT: "#A3ADBA",
    GRID: "#2E3742",
    RULE: "#4A5563",
    FAINT: "#46525F",
    BLUE: "#3D9AD6",
    "#440154": "#9A6CC4",  # the dark end of Viridis
    "#3B528B": "#6C86C9",
}

_AXIS = {
    "gridcolor": GRID,
    "linecolor": RULE,
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "tickcolor": RULE,
    "automargin": True,
    "title": {"font": {"size": 13, "color": SOFT}, "standoff": 8},
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
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        # below the axis, from the figure's lower edge up: wraps without covering anything
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        "margin": {"l": 60, "r": 16, "t": 56, "b": 96},
        "hoverlabel": {"bgcolor": PAPER, "font": {"size": 12}},
        "colorscale": {"sequential": "Viridis"},
    }
)


def figure(title: str, x: str, y: str) -> go.Figure:
    """An empty figure in our style, its axes named."""
    figure = go.Figure(layout={"template": TEMPLATE, "title": title, "height": HEIGHT})
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def verbatim(text: str) -> str:
    """A foreign name as a label, escaped: Plotly interprets `<b>`."""
    return html.escape(text, quote=False)


def note(figure: go.Figure, text: str) -> None:
    """A line below the title of `figure`."""
    figure.update_layout(title={"subtitle": {"text": text, "font": {"size": 12, "color": SOFT}}})
    figure.update_layout(margin={"t": 76})


def colour(name: str, index: int) -> str:
    """The colour of a mixture: its own if it is a well-known one, else the next free one."""
    rest = [c for c in PALETTE if c not in NAMED.values()]
    return NAMED.get(name, rest[index % len(rest)])


def with_unit(label: str, objective: Objective) -> str:
    """`label` with the objective's unit, where it has one, and where higher is better."""
    unit = unit_of(objective)
    return f"{label} ({unit})" if unit else label


def unit_of(objective: Objective) -> str:
    """The objective's unit, where it has one, and where higher is better; else empty."""
    if all(name.startswith("bpb/") and w > 0 for name, w in objective.weights.items()):
        return BITS
    names = list(objective.weights)
    known = [verbatim(names[0])] if len(names) == 1 else []
    direction = ["higher is better"] if objective.sign == -1 else []
    return ", ".join([*known, *direction])


def faded(colour: str) -> str:
    """`#RRGGBB` with the opacity of a band between quartiles."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND})"


def add_band(
    figure: go.Figure,
    x: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    colour: str,
    group: str,
    shape: str = "hv",
    **place: int,
) -> None:
    """A faint band between two lines, which hides and shows with the lines of its `group`.

    Args:
        figure: to add it to.
        x: (n,) where the edges change.
        edges: (n,) each.
        colour: `#RRGGBB`.
        group: legend group.
        shape: of the lines: steps, or `linear`.
        place: `row` and `col` of a panel.
    """
    for edge, fill in zip(edges, (None, "tonexty"), strict=True):
        figure.add_scatter(
            x=x,
            y=edge,
            fill=fill,
            fillcolor=faded(colour),
            line={"width": 0, "shape": shape},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            legendgroup=group,
            **place,
        )
