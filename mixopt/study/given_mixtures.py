"""Mixtures that people give: weights by domain, or a CSV or JSON file of them.

Read are what `mixopt export --mixture json` and `csv` write (a `weight` per domain), a plain JSON
object `{web: 0.6, code: 0.4}` or a list of such, and CSV with a row per mixture and a column per
domain, as `mixopt propose` writes.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.mixture import SUM_TOLERANCE, Mixture
from mixopt.io.csv_files import unguarded

LOOSE = 0.02  # how far from 1 rounded weights may sum, as those of finished runs may
PREFIX = "mixture."  # of a domain's column in tables of trials
PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")


def weight(value: Any) -> float | None:
    """A weight: a number of at least 0, or text such as `40%`; None for anything else.

    >>> weight(0.4), weight("40%"), weight("web.csv")
    (0.4, 0.4, None)
    """
    if isinstance(value, str) and (match := PERCENT.fullmatch(value)):
        return float(match[1]) / 100
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if math.isfinite(number) and number >= 0 else None


def mixture_of(weights: Mapping[str, Any], domains: Sequence[str]) -> Mixture:
    """The mixture of `weights` over `domains`, in their order; those left out have weight 0.

    Weights that sum to .98 … 1.02 are renormalised.

    Args:
        weights: by domain, as `weight` takes them.
        domains: all there are.

    Raises:
        StudyError: a domain is unknown, a weight is none, or they do not sum to 1; `where` is the
            domain.
    """
    known: dict[str, float] = {}
    for name, value in weights.items():
        number = weight(value)
        if number is None:
            raise StudyError(
                f"{value!r} is no weight", where=str(name), hint="Write a share, such as 0.4 or 40%"
            )
        if name not in domains:
            near = difflib.get_close_matches(str(name), domains, n=1)
            question = f"Did you mean {near[0]!r}? " if near else ""
            raise StudyError(
                f"there is no training domain {name!r}",
                where=str(name),
                hint=f"{question}Choose from {', '.join(domains)}",
            )
        known[name] = number
    total = math.fsum(known.values())
    if abs(total - 1) > LOOSE:
        raise StudyError(
            f"the weights sum to {total:.4g}, not to 1",
            hint="Give shares of the tokens; a domain that is left out has none",
        )
    full = {name: known.get(name, 0.0) for name in domains}
    return Mixture.of(full) if abs(total - 1) > SUM_TOLERANCE else Mixture.exact(full)


def mixture_or_file(value: Any) -> Any:
    """`value`, if it is the path of a file or weights by domain.

    Raises:
        StudyError: it is neither.
    """
    if isinstance(value, str) or (isinstance(value, Mapping) and value):
        return value
    raise StudyError(
        f"{value!r} is no mixture", hint="Write {web: 0.6, code: 0.4}, or a CSV or JSON file"
    )


def mixture_words(text: str, reference: Mixture) -> Mixture:
    """The mixture that `text` describes, such as `web=40%` or `web=0.4,code=0.6`.

    What the named domains leave of the tokens goes to the others, in the proportions that they
    have in `reference` (evenly if it has nothing of them).

    >>> mixture_words("web=40%", Mixture.of({"web": 2, "code": 1, "books": 1})).weights
    (0.4, 0.3, 0.3)

    Raises:
        StudyError: it is no such text, or names a domain that `reference` has not.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        share = weight(value)
        if share is None:
            with contextlib.suppress(ValueError):
                share = weight(float(value))
        if not (sign and name.strip()) or share is None or name.strip() in weights:
            raise StudyError(
                f"{part.strip()!r} is no weight of a domain",
                where=text,
                hint="Write web=40%, or all of them: web=0.4,code=0.6",
            )
        weights[name.strip()] = share
    others = {d: w for d, w in reference.as_dict().items() if d not in weights}
    rest, known = 1 - math.fsum(weights.values()), math.fsum(others.values())
    if others and rest > SUM_TOLERANCE:
        for domain, share in others.items():
            weights[domain] = rest * (share / known if known > 0 else 1 / len(others))
    with naming(text):
        return mixture_of(weights, reference.domains)


@contextlib.contextmanager
def naming(where: str, separator: str = ": ") -> Iterator[None]:
    """Errors that the block raises name `where` first.

    Raises:
        StudyError: in place of that of the block.
    """
    try:
        yield
    except StudyError as error:
        place = separator.join(part for part in (where, error.where) if part)
        raise StudyError(error.what, where=place, hint=error.hint) from None


def read_mixtures(path: Path, domains: Sequence[str]) -> list[Mixture]:
    """The mixtures of the JSON or CSV file at `path`, over `domains` in their order.

    Raises:
        StudyError: it cannot be read, or holds no mixtures over these domains; `where` names the
            file, the line and the column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise StudyError(
            f"cannot be read: {problem.strerror or problem}",
            where=str(path),
            hint="Name a CSV or JSON file; paths are relative to the study file",
        ) from None
    except UnicodeDecodeError:
        raise StudyError("is no text in UTF-8", where=str(path)) from None
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(text, path, domains)
    return _from_csv(text, path, domains)


def _from_json(text: str, path: Path, domains: Sequence[str]) -> list[Mixture]:
    try:
        values = json.loads(text)
    except ValueError as problem:
        raise StudyError(f"is not JSON: {problem}", where=str(path)) from None
    several = values if isinstance(values, list) else [values]
    if not several:
        raise StudyError("holds no mixture", where=str(path))
    found = []
    for number, value in enumerate(several, 1):
        where = f"{path}: mixture {number}" if len(several) > 1 else str(path)
        with naming(where):
            found.append(mixture_of(_weights(value), domains))
    return found


def _weights(value: Any) -> Mapping[str, Any]:
    """The weights of one JSON value: plain, or under `domains` or `mixture`, as mixopt writes."""
    if isinstance(value, dict):
        for key in ("domains", "mixture"):
            if isinstance(value.get(key), dict):
                value = value[key]
                break
        parts = {k: v["weight"] if _has_weight(v) else v for k, v in value.items()}
        if parts:
            return parts
    raise StudyError("holds no mixture", hint='Write {"web": 0.6, "code": 0.4}')


def _has_weight(value: Any) -> bool:
    return isinstance(value, dict) and "weight" in value


def _from_csv(text: str, path: Path, domains: Sequence[str]) -> list[Mixture]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [
        (reader.line_num, [unguarded(cell.strip()) for cell in row])
        for row in reader
        if any(cell.strip() for cell in row)
    ]
    if len(rows) < 2:
        raise StudyError("holds no mixture", where=str(path), hint="Give a header and a row")
    columns = rows[0][1]
    for line, row in rows[1:]:
        if len(row) != len(columns):
            raise StudyError(
                f"there are {len(row)} cells under {len(columns)} columns", where=f"{path}:{line}"
            )
    if "domain" in columns and "weight" in columns:
        return [_long(rows[1:], columns, path, domains)]
    names = [column.removeprefix(PREFIX) for column in columns]
    held = [k for k, name in enumerate(names) if name in domains]
    if not held:
        raise StudyError(
            "has no column of a training domain",
            where=f"{path}:1",
            hint=f"Name columns domain and weight, or a column for each of {', '.join(domains)}",
        )
    found = []
    for line, row in rows[1:]:
        with naming(f"{path}:{line}"):
            found.append(mixture_of({names[k]: _number(row[k]) for k in held}, domains))
    return found


def _long(
    rows: Sequence[tuple[int, list[str]]],
    columns: Sequence[str],
    path: Path,
    domains: Sequence[str],
) -> Mixture:
    """The mixture of a table with a row per domain."""
    name, share = columns.index("domain"), columns.index("weight")
    weights: dict[str, Any] = {}
    for line, row in rows:
        if row[name] in weights:
            raise StudyError(f"the domain {row[name]!r} is there twice", where=f"{path}:{line}")
        weights[row[name]] = _number(row[share])
        if row[name] not in domains or weight(weights[row[name]]) is None:
            with naming(f"{path}:{line}"):  # here, where the line is known
                mixture_of({row[name]: weights[row[name]]}, domains)
    with naming(str(path)):
        return mixture_of(weights, domains)


def _number(cell: str) -> Any:
    """A cell as a number; as it is if it is none, for the error to show."""
    try:
        return float(cell)
    except ValueError:
        return cell
