"""Constraints on a command line mean what they say, or the error says what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.core.errors import StudyError
from mixopt.core.space import LinearConstraint
from mixopt.offline.constraint_words import available_of, bounds_of, linear_of

DOMAINS = ("web", "code", "web-news", "5mix", "train_the_pile_arxiv", "a+b")


@pytest.mark.parametrize(
    ("text", "coefficients", "at_most"),
    [
        ("web + code <= 0.7", {"web": 1, "code": 1}, 0.7),
        ("web+code<=.7", {"web": 1, "code": 1}, 0.7),
        ("web + code < 7e-1", {"web": 1, "code": 1}, 0.7),
        ("web ≥ 0.2", {"web": -1}, -0.2),
        ("0.2 <= web", {"web": -1}, -0.2),
        ("2 * code >= web", {"code": -2, "web": 1}, 0),
        ("web - 0.5 code <= 0.1", {"web": 1, "code": -0.5}, 0.1),
        ("2code<=web+.1", {"code": 2, "web": -1}, 0.1),
        ("1.5·web + 0.1 ≤ 0.9", {"web": 1.5}, 0.8),
        ("-web <= -0.2", {"web": -1}, -0.2),
        ("web + web <= 1", {"web": 2}, 1),
        ("web-news + web <= 0.3", {"web-news": 1, "web": 1}, 0.3),
        ("5mix + 3 5mix <= 1", {"5mix": 4}, 1),
        ("a+b + web <= 1", {"a+b": 1, "web": 1}, 1),
        ("arxiv + 2 * pile_arxiv <= 0.5", {"train_the_pile_arxiv": 3}, 0.5),
    ],
)
def test_a_linear_constraint_is_read(
    text: str, coefficients: dict[str, float], at_most: float
) -> None:
    found = linear_of(text, DOMAINS)
    assert dict(found.coefficients) == coefficients
    assert found.at_most == pytest.approx(at_most)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web", "is not a linear constraint"),
        ("web = 0.3", "is not a linear constraint"),
        ("0 <= web <= 0.3", "is not a linear constraint"),
        ("web <=", "one side is empty"),
        ("web code <= 1", "a \\+ or - is missing"),
        ("wen <= 1", "no domain is called 'wen'.*web"),
        ("2 <= 3", "constrains no domain"),
        ("web <= web", "constrains no domain"),
        ("we + code <= 0.7", "'we' could be"),
    ],
)
def test_what_is_no_linear_constraint_is_refused(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        linear_of(text, DOMAINS)


@given(
    st.dictionaries(
        st.sampled_from(DOMAINS),
        st.integers(-400, 400).filter(bool).map(lambda k: k / 100),
        min_size=1,
    ),
    st.integers(-100, 100).map(lambda k: k / 100),
)
def test_what_a_constraint_prints_is_read_again(
    coefficients: dict[str, float], at_most: float
) -> None:
    constraint = LinearConstraint(coefficients, at_most)
    again = linear_of(str(constraint), DOMAINS)
    assert dict(again.coefficients) == pytest.approx(coefficients)
    assert again.at_most == pytest.approx(at_most)


def test_bounds_may_leave_one_side_out() -> None:
    lower, upper = bounds_of(["web=0.1:0.5", "code=:0.3", "arxiv=0.05:"], DOMAINS)
    assert lower == {"web": 0.1, "train_the_pile_arxiv": 0.05}
    assert upper == {"web": 0.5, "code": 0.3}


@pytest.mark.parametrize("text", ["web", "web=0.3", "web=:", "web=a:1", "web=0.1:1.5", "web=-1:1"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match=f"--bounds {text}"):
        bounds_of([text], DOMAINS)


def test_a_domain_is_bound_once() -> None:
    with pytest.raises(StudyError, match="named twice"):
        bounds_of(["web=0.1:", "web=:0.5"], DOMAINS)


def test_available_tokens_may_be_written_short() -> None:
    found = available_of(["code=20B", "web=1.5T", "5mix=0"], DOMAINS)
    assert found == {"code": 20_000_000_000, "web": 1_500_000_000_000, "5mix": 0}


@pytest.mark.parametrize("text", ["code", "code=many", "code=-1", "=20B"])
def test_what_is_no_count_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match="Write domain=20B"):
        available_of([text], DOMAINS)
