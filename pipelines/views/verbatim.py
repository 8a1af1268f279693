"""Foreign names and messages, escaped for Markdown."""

from __future__ import annotations

import re


def verbatim(text: str) -> str:
    r"""`text` escaped for a line or cell of Markdown.

    >>> print(verbatim("a_b"))
    a\_b
    """
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", text)


def verbatim_block(text: str) -> str:
    """`text` as a fenced block of Markdown; the fence is longer than any inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
