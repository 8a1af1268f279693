"""Comment lines of a study file: every registered part that could stand in place of a default.

    proposer: bayes                  # Noisy expected improvement …
    # proposer: climb                # …

Each such line is valid YAML once its `# ` is gone and the line that it replaces too.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mixopt.core.summaries import first_paragraph, summaries

WIDTH = 100  # columns of the file


def alternatives(
    key: str,
    chosen: str,
    registered: Mapping[str, str],
    indent: int,
    *,
    without: Collection[str] = (),
) -> str:
    """The line `key: chosen`, and a comment line for each other registered part.

    Args:
        key: of the study file.
        chosen: the name that holds.
        registered: registry name → `package.module:Name`.
        indent: spaces before `key`.
        without: names that cannot stand in this study.
    """
    described = {name: text for name, text in summaries(registered).items() if name not in without}
    return _lines(key, chosen, described, indent, own=True)


def function_alternatives(
    key: str, chosen: str, registered: Mapping[str, Callable[..., Any]], indent: int
) -> str:
    """As `alternatives`, of a registry of functions, which takes none of the user's own."""
    described = {name: first_paragraph(inspect.getdoc(it)) for name, it in registered.items()}
    return _lines(key, chosen, described, indent, own=False)


def _lines(key: str, chosen: str, described: Mapping[str, str], indent: int, *, own: bool) -> str:
    column = indent + 4 + len(key) + max(map(len, described)) + 2
    names = [chosen, *sorted(set(described) - {chosen})]
    lines = []
    for name in names:
        mark = "" if name == chosen else "# "
        lines += _with_comment(" " * indent + f"{mark}{key}: {name}", described[name], column)
    if own:
        lines.append(" " * indent + "# or one of your own, as package.module:Name")
    return "\n".join(lines)


def _with_comment(line: str, text: str, column: int) -> list[str]:
    """`line` with `text` behind it from `column` on, in as many lines as that takes."""
    first, *rest = textwrap.wrap(text, WIDTH - column - 2, break_on_hyphens=False) or [""]
    indent = len(line) - len(line.lstrip(" "))
    beside = [f"{line:<{column}}# {first}"]
    return beside + [f"{' ' * indent + '#':<{column}}  {more}" for more in rest]
