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
from mixopt.pipelines.views.json_output import print_json

Format = Literal["csv", "json", "parquet"]


def export_trials(path: Path, format: Format, out: Path | None, *, as_json: bool = False) -> None:
    """Write the trials of the study at `path` to `out`, or print them.

    Args:
        path: the study file; the study may be running.
        format: `csv`, `json` (a list of objects) or `parquet`.
        out: None prints; Parquet needs a file.
        as_json: print one JSON object, its rows under `trials`, whatever the format of `out`.

    Raises:
        StudyError: the study has not begun, or Parquet would be printed.
        RunsError: `out` cannot be written.
    """
    if out is not None:
        writable(out, FILE)
    elif format == "parquet" and not as_json:
        raise StudyError("Parquet is no text", where="--format parquet", hint="Add --out FILE")
    study = open_study(path)
    if out is not None:
        write(out, as_bytes(study.trials, format))
    if as_json:
        print_json({"study": study.settings.name, "trials": study.trials.to_dicts()})
    elif out is None:
        print(as_bytes(study.trials, format).decode(), end="")
    else:
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
