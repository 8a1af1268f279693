"""A page as one HTML file that needs no network: light and dark, on screen and on paper.

plotly's script is in it once, compressed; the browser inflates it. All tables, the answer and the
five questions are plain HTML: they need no script.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.pipelines.views.page.parts import Cell, Figure, Page
from mixopt.plots import style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from markupsafe import Markup

FOLDER = Path(__file__).parent
LEVEL = 6  # of gzip: 9 takes 3 kB off 1.96 MB, 1 adds 313 kB and saves .1 s
ROOM = 8  # px above a figure: its title stands in the page


def render(page: Page) -> str:
    """The page as HTML."""
    import jinja2

    # autoescape: names of domains and messages of failed trials are not ours
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    environment.filters["drawn"] = _drawn
    environment.filters["words"] = _words
    template = environment.from_string((FOLDER / "page.html").read_text())
    sections = [section for section in page.sections if not section.empty]
    return template.render(
        page=page,
        sections=sections,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        css=(FOLDER / "page.css").read_text(),
        script=(FOLDER / "page.js").read_text(),
        drawn=any(section.figures for section in sections),
        plotly=_plotly(),
        template=_json(style.TEMPLATE.to_plotly_json()),
        shades=_json(style.DARK),
    )


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _words(text: str) -> Markup:
    """A text in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a name with a backtick
        return escape(text)
    marked = [
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts)
    ]
    return Markup("").join(marked)


def _drawn(figure: Figure) -> dict[str, str]:
    """Title, what stands below it, and the JSON that the browser draws."""
    return _split(figure.plot)


def _split(plot: go.Figure) -> dict[str, str]:
    """A figure's texts, and its JSON without them and without our template, which is there once."""
    values: dict[str, Any] = json.loads(plot.to_json())
    layout = values["layout"]
    layout.pop("template", None)
    title = layout.pop("title", {})
    layout["margin"] = {**layout.get("margin", {}), "t": _top(layout)}
    note = title.get("subtitle", {}).get("text", "")
    return {
        "title": html.unescape(title.get("text", "")),
        "note": html.unescape(note),
        "height": str(layout.get("height", style.HEIGHT)),
        "json": _json({"data": values["data"], "layout": layout}),
    }


def _top(layout: dict[str, Any]) -> int:
    """Room above the axes: for the titles of panels, where there are some."""
    return 26 if layout.get("annotations") else ROOM


def _json(values: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(values, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Plotly's script, compressed."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), LEVEL, mtime=0)
    return base64.b64encode(packed).decode()
