"""A page in Markdown, cut between its parts where MLflow keeps no more."""

from __future__ import annotations

from collections.abc import Iterable

RUN = 8000  # characters that MLflow keeps of a run's description
VERSION = 5000  # … and of a version's


def page(parts: Iterable[str], most: int) -> str:
    r"""The parts that are not empty, as paragraphs, as many from the first on as fit.

    >>> page(["first", "", "second", "third"], most=14)
    'first\n\nsecond'
    """
    text = ""
    for part in filter(None, parts):
        longer = f"{text}\n\n{part}" if text else part
        if len(longer) > most:
            break
        text = longer
    return text
