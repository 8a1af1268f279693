"""Counts and errors as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.core.counts import parse_tokens
from mixopt.core.formatting import count, plus_minus, with_error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (-2_500_000, "-2.5M"),
        (3e9, "3B"),
        (1.5e12, "1.5T"),
        (4e15, "4e+03T"),
    ],
)
def test_a_count_has_three_digits_and_the_largest_suffix_that_fits(value: float, text: str) -> None:
    assert count(value) == text


@given(st.integers(0, 10**14))
def test_a_count_is_read_back_within_its_three_digits(value: int) -> None:
    assert parse_tokens(count(value)) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.345, 3.21, "12.3 ± 3.2"),
        (12.345, 0.00321, "12.3450 ± 0.0032"),
        (12.345, 45.6, "12 ± 46"),
        (12.345, 0.0, "12.35 ± 0"),
        (12.345, math.nan, "12.35"),
        (math.nan, 1.0, "–"),
    ],
)
def test_an_error_is_shown_to_its_second_digit(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_an_interval_has_the_decimals_of_its_value() -> None:
    assert plus_minus(1.0, 0.25, decimals=2) == "1.00 ± 0.25"
