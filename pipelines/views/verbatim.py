"""Names and messages that are not ours, in Markdown as they are."""

from __future__ import annotations

import re


def verbatim(text: str) -> str:
    """`text` in a line or cell of Markdown: nothing in it is a mark."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", text)


def verbatim_block(text: str) -> str:
    """Lines of `text` in Markdown: the fence around them is longer than any in them."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
