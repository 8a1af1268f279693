"""Tables as CSV in which a spreadsheet shows texts and runs none of them.

A text that begins as a formula does gets an apostrophe before it, which spreadsheets read as "this
is text" (OWASP, CSV injection). Numbers stay as they are, and `unguarded` takes the
apostrophe away.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # apostrophes count too, so that taking one away is exact
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def csv_bytes(frame: pl.DataFrame) -> bytes:
    """`frame` as CSV in UTF-8 with a header; names of columns and texts are guarded."""
    import polars as pl  # .6 s, which whoever reads a study file does not need

    texts = [
        pl.Series(name, [None if text is None else guarded(text) for text in frame[name]], kind)
        for name, kind in frame.schema.items()
        if kind == pl.String
    ]
    safe = frame.with_columns(texts).rename({name: guarded(name) for name in frame.columns})
    return safe.write_csv().encode()


def guarded(text: str) -> str:
    """`text` as a cell that no spreadsheet runs."""
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` made `cell` of."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
