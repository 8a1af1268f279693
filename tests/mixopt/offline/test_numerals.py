"""Numbers are read as the table writes them, and one that may be two numbers is not guessed."""

from __future__ import annotations

import math

import pytest

from mixopt.offline.numerals import Numerals, is_missing


@pytest.mark.parametrize(
    ("texts", "delimiter", "values"),
    [
        (["0.5", "12", "1e-3"], ",", [0.5, 12, 1e-3]),
        (["1,234.5", "2,000", "1,234,567"], ",", [1234.5, 2000, 1234567]),
        (["0.25", "1,234"], ",", [0.25, 1234]),
        (["0,25", "12"], ",", [0.25, 12]),
        (["0,25", "3,141"], ";", [0.25, 3.141]),
        (["3,141"], ";", [3.141]),
        (["1.234,5", "2.000", "-0,5"], ";", [1234.5, 2000, -0.5]),
        (["1 234,5", "1\u202f234"], "\t", [1234.5, 1234]),
        (["1'234.5"], ",", [1234.5]),
        (["12,5 %", "100%"], ";", [0.125, 1]),
        (["inf", "-Infinity"], ",", [math.inf, -math.inf]),
    ],
)
def test_numbers_are_read_as_the_whole_table_writes_them(
    texts: list[str], delimiter: str, values: list[float]
) -> None:
    numerals = Numerals.of(texts, delimiter)
    assert [numerals.value(text) for text in texts] == values
    assert not any(numerals.is_unclear(text) for text in texts)


@pytest.mark.parametrize("text", ["12 pp", "1,2,3", "1.2.3", "1,23,456", "0x", "2025-03-02", "%"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert math.isnan(Numerals.of([text], ",").value(text))


@pytest.mark.parametrize(("texts", "delimiter"), [(["3,141"], ","), (["0,5", "1.234"], ";")])
def test_a_number_that_may_be_a_thousand_times_another_is_unclear(
    texts: list[str], delimiter: str
) -> None:
    assert Numerals.of(texts, delimiter).is_unclear(texts[-1])


@pytest.mark.parametrize("text", ["", "NaN", "—", "–", "#DIV/0!", "N/A", "None"])
def test_cells_that_say_that_there_is_no_value_are_missing(text: str) -> None:
    assert is_missing(text)
