"""`mixopt trials STUDY.yaml`: the trials as a table, a row each.

The columns are those of `mixopt.open_study(…).trials` (docs/python.md).
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

import polars as pl

from mixopt.api.study import open_study
from mixopt.core.errors import StudyError
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.pipelines.offline.outputs import FILE, writable, write

Format = Literal["csv", "json", "parquet"]


def export_trials(path: Path, format: Format, out: Path | None) -> None:
    """Write the trials of the study at `path` to `out`, or print them.

    Args:
        path: the study file; the study may be running.
        format: `csv`, `json` (a list of objects) or `parquet`.
        out: None prints; Parquet needs a file.

    Raises:
        StudyError: the study has not begun, or Parquet would be printed.
        RunsError: `out` cannot be written.
    """
    if out is not None:
        writable(out, FILE)
    elif format == "parquet":
        raise StudyError("Parquet is no text", where="--format parquet", hint="Add --out FILE")
    data = as_bytes(open_study(path).trials, format)
    if out is None:
        print(data.decode(), end="")
    else:
        write(out, data)
        print(out)


def as_bytes(frame: pl.DataFrame, format: Format) -> bytes:
    """`frame` in `format`. In CSV, texts that a spreadsheet would run are guarded."""
    if format == "csv":
        return csv_bytes(frame)
    if format == "json":
        rows = [json.dumps(finite(row), ensure_ascii=False) for row in frame.to_dicts()]
        return ("[" + ",\n ".join(rows) + "]\n").encode()
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
