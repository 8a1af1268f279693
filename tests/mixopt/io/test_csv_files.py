"""What we write as CSV runs nowhere, and reads back as it was."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.io.csv_files import csv_bytes, guarded, unguarded
from mixopt.offline.sheets import read_sheet

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_cells_and_headers_that_a_spreadsheet_would_run_are_texts(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "T.csv"
    file.write_bytes(csv_bytes(pl.DataFrame({"run": [text, "a"], f"{text}w": [-1.5, 2.0]})))
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[0][1][0] == rows[1][0][0] == "'"
    assert [row[1] for row in rows[1:]] == ["-1.5", "2.0"]
    sheet = read_sheet(file)
    assert sheet.columns == ("run", f"{text}w")
    assert sheet.cells["run"] == [text, "a"]


def test_names_that_are_numbers_and_missing_texts_stay() -> None:
    written = csv_bytes(pl.DataFrame({"run": ["-7", "+1e5", None], "loss": [1.0, None, -2.0]}))
    assert written == b"run,loss\n-7,1.0\n+1e5,\n,-2.0\n"


@given(st.text("'=+-@\t\r.1a,\"\n"))
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    assert unguarded(guarded(text)) == text
    frame = pl.DataFrame({"run": [text, "end"]})
    rows = list(csv.reader(io.StringIO(csv_bytes(frame).decode(), newline="")))
    assert unguarded("".join(rows[1])) == text
