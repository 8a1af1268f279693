"""Constraints of the command line, parsed: `web=0.1:0.5`, `code=20B`, `web + code <= 0.7`.

A domain may be given by its whole name or by any part that no other domain's name has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mixopt.core.counts import parse_count
from mixopt.core.errors import StudyError
from mixopt.core.space import LinearConstraint
from mixopt.offline.names import find_name

NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
RELATION = re.compile(r"<=|>=|≤|≥|<|>|=")
INSIDE_A_NAME = re.compile(r"[\w.:/@%-]")  # a name ends before anything else


def bounds_of(
    asked: Sequence[str], domains: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Least and greatest weight by domain from `domain=lo:hi`; either side may be left out.

    Raises:
        StudyError: the text has another form, a weight lies outside 0 to 1, or a domain is unknown
            or named twice.

    >>> bounds_of(["web=0.1:0.5", "wiki=:0.1"], ["web", "wikipedia"])
    ({'web': 0.1}, {'web': 0.5, 'wikipedia': 0.1})
    """
    lower: dict[str, float] = {}
    upper: dict[str, float] = {}
    seen: set[str] = set()
    for text in asked:
        where = f"--bounds {text}"
        name, _, interval = text.rpartition("=")
        low, colon, high = interval.partition(":")
        if not name or not colon or not (low.strip() or high.strip()):
            raise StudyError("is not a bound", where=where, hint="Write domain=lo:hi, lo: or :hi")
        domain = _once(find_name(name.strip(), domains, "domain", where), seen, where)
        ends = [_weight(end, where) for end in (low, high)]
        if ends[0] is not None:
            lower[domain] = ends[0]
        if ends[1] is not None:
            upper[domain] = ends[1]
    return lower, upper


def available_of(asked: Sequence[str], domains: Sequence[str]) -> dict[str, int]:
    """Training tokens by domain from `domain=tokens`, such as `code=20B`.

    Raises:
        StudyError: the text has another form, or a domain is unknown or named twice.
    """
    found: dict[str, int] = {}
    for text in asked:
        where = f"--available {text}"
        name, _, amount = text.rpartition("=")
        tokens = 0.0 if amount.strip() == "0" else parse_count(amount)
        if not name or tokens is None:
            raise StudyError("is not a count of tokens", where=where, hint="Write domain=20B")
        domain = _once(find_name(name.strip(), domains, "domain", where), set(found), where)
        found[domain] = round(tokens)
    return found


def linear_of(text: str, domains: Sequence[str]) -> LinearConstraint:
    """A constraint such as `web + code <= 0.7`, `2 * books >= wiki` or `web - 0.5 code <= 0.1`.

    Both sides may hold domains, numbers before them, and constants.

    Raises:
        StudyError: the text has another form, compares with `=`, or names an unknown domain.

    >>> str(linear_of("books >= 0.5 * code", ["web", "books", "code"]))
    '-1·books + 0.5·code ≤ 0'
    """
    where = f"--linear {text}"
    left, relation, right = _sides(text, domains, where)
    here, there = _terms(left, domains, where), _terms(right, domains, where)
    coefficients = dict.fromkeys([*here[0], *there[0]], 0.0)
    for name in coefficients:
        coefficients[name] = here[0].get(name, 0.0) - there[0].get(name, 0.0)
    at_most = there[1] - here[1]
    if relation in (">=", "≥", ">"):
        coefficients = {name: -value for name, value in coefficients.items()}
        at_most = -at_most
    kept = {name: value + 0.0 for name, value in coefficients.items() if value != 0}
    if not kept:
        raise StudyError("constrains no domain", where=where, hint="Name a domain")
    if not all(map(math.isfinite, (*kept.values(), at_most))):
        raise StudyError("holds a number that is not finite", where=where)
    return LinearConstraint(kept, at_most + 0.0)


def _sides(text: str, domains: Sequence[str], where: str) -> tuple[str, str, str]:
    # names of domains may hold a relation sign; those are passed over
    at, found = 0, []
    while at < len(text):
        name = _name_at(text, at, domains)
        sign = None if name else RELATION.match(text, at)
        if sign:
            found.append(sign)
        at += len(name) if name else len(sign[0]) if sign else 1
    if len(found) != 1 or found[0][0] == "=":
        raise StudyError(
            "is not a linear constraint", where=where, hint='Write such as "web + code <= 0.7"'
        )
    return text[: found[0].start()], found[0][0], text[found[0].end() :]


def _terms(side: str, domains: Sequence[str], where: str) -> tuple[dict[str, float], float]:
    """Coefficients by domain, and the constant, of one side."""
    coefficients: dict[str, float] = {}
    constant, at = 0.0, 0
    rest = side.strip()
    if not rest:
        raise StudyError("one side is empty", where=where, hint='Write such as "web <= 0.7"')
    first = True
    while at < len(rest):
        sign = re.compile(r"\s*([-+]?)\s*").match(rest, at)
        assert sign is not None  # it matches the empty string too
        if not sign[1] and not first:
            raise StudyError(
                f"a + or - is missing before {rest[at:].strip()!r}",
                where=where,
                hint="Give names of domains in full if they hold spaces or signs",
            )
        at, first = sign.end(), False
        factor = -1.0 if sign[1] == "-" else 1.0
        name = _name_at(rest, at, domains)
        number = None if name else NUMBER.match(rest, at)
        if number:
            factor *= float(number[0])
            times = re.compile(r"\s*([*·×]?)\s*").match(rest, number.end())
            assert times is not None
            at = times.end()
            name = _name_at(rest, at, domains)
            if not name and not times[1] and (at == len(rest) or rest[at] in "+-"):
                constant += factor
                continue
        short = "" if name else _word_at(rest, at)
        domain = name or find_name(short, domains, "domain", where)
        at += len(name or short)
        coefficients[domain] = coefficients.get(domain, 0.0) + factor
        at += len(rest[at:]) - len(rest[at:].lstrip())
    return coefficients, constant


def _name_at(text: str, at: int, domains: Sequence[str]) -> str:
    """The longest full name of a domain that stands at `at` as a word of its own; else empty."""
    if at and INSIDE_A_NAME.match(text[at - 1]) and text[at - 1] != "-":
        return ""
    fitting = [
        name
        for name in domains
        if text.startswith(name, at) and not INSIDE_A_NAME.match(text[at + len(name) :])
    ]
    return max(fitting, key=len, default="")


def _word_at(text: str, at: int) -> str:
    found = re.compile(r"[^\s+*·×<>=≤≥]+").match(text, at)
    return found[0] if found else ""


def _once(domain: str, seen: set[str], where: str) -> str:
    if domain in seen:
        raise StudyError(f"{domain!r} is named twice", where=where)
    seen.add(domain)
    return domain


def _weight(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise StudyError(f"{text!r} is not a weight from 0 to 1", where=where)
    return value
