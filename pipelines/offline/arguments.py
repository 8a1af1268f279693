"""Arguments of `mixopt.fit`, checked and put in the words of the command line, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import polars as pl

from mixopt.core.errors import RunsError, StudyError

ARGUMENTS = {
    "metrics": "metrics",
    "model-params": "params",
    "objective": "objective",
    "priors": "priors",
    "ratios": "ratios",
    "seed": "seed",
    "surrogate": "surrogate",
    "tokens": "tokens",
}
"""Option of the command line → argument of `mixopt.fit`."""
OPTION = re.compile(r"--objective (?:'([^'=]+)=([^'=]+)'|([^'=\s]+)=([^'\s;.]+(?:\.\d+)?))")


def check(priors: object, surrogate: object, seed: object) -> None:
    """Refuse arguments of kinds that a command line cannot have.

    Raises:
        StudyError: naming the argument.
    """
    for name, value, fits, hint in (
        (
            "priors",
            priors,
            priors is None or isinstance(priors, str | Path),
            "Write them to a YAML file and give its path",
        ),
        (
            "surrogate",
            surrogate,
            isinstance(surrogate, str),
            "Give a registry name, such as 'auto' or 'linear'",
        ),
        (
            "seed",
            seed,
            isinstance(seed, Integral) and int(seed) >= 0,
            "Give an integer of at least 0",
        ),
    ):
        if not fits:
            raise StudyError(f"{value!r} cannot be used", where=name, hint=hint)


def check_table(table: object, name: str) -> None:
    """Refuse what is neither a path nor a frame that CSV can hold.

    Raises:
        RunsError: naming the argument, and the column.
    """
    if isinstance(table, pl.DataFrame):
        nested = [column for column, kind in table.schema.items() if kind.is_nested()]
        if nested:
            raise RunsError(
                "the column holds lists or structs",
                where=f"{name}: {nested[0]}",
                hint="Give a column of numbers per domain or metric, or drop it",
            )
    elif isinstance(table, pl.LazyFrame):
        raise RunsError("a LazyFrame holds no rows yet", where=name, hint="Call .collect() first")
    elif not isinstance(table, str | Path):
        raise RunsError(
            f"a {type(table).__name__} is no table",
            where=name,
            hint="Give the path of a CSV file or a polars DataFrame (polars.from_pandas makes one)",
        )


def objective_words(objective: object) -> list[str]:
    """`objective` as the command line has it: `metric=weight` each.

    Raises:
        StudyError: it is no mapping of names to finite numbers.

    >>> objective_words({"prose": 1, "gsm8k": -0.5})
    ['prose=1.0', 'gsm8k=-0.5']
    """
    if objective is None:
        return []
    if not isinstance(objective, Mapping):
        raise StudyError(
            f"{objective!r} is no mapping of metrics to weights",
            where="objective",
            hint='Write objective={"metric": 1.0}; a negative weight maximises',
        )
    for name, weight in objective.items():
        if not (isinstance(weight, Real) and math.isfinite(weight)):
            raise StudyError(
                f"{weight!r} is not a weight", where=f"objective: {name}", hint="Give a number"
            )
    return [f"{name}={float(weight)!r}" for name, weight in objective.items()]


def count_words(value: object, name: str) -> str | None:
    """A count as the command line has it: 60000000 and 6e7 as much as `60M`.

    Raises:
        StudyError: it is no count.
    """
    if value is None or isinstance(value, str):
        return value
    if not (isinstance(value, Real) and math.isfinite(value) and float(value) >= 1):
        raise StudyError(f"{value!r} is not a count", where=name, hint="Give 6e7 or '60M'")
    return f"{float(value):.0f}"


def in_python(text: str) -> str:
    """`text` with the arguments of `fit` where it names options of the command line.

    >>> in_python("Name them, such as --objective prose=1 --objective 'a b=1'")
    'Name them, such as objective={"prose": 1, "a b": 1}'
    """
    text = OPTION.sub(lambda m: f'objective={{"{m[1] or m[3]}": {m[2] or m[4]}}}', text)
    text = text.replace("} objective={", ", ").replace("the option", "the argument")
    return re.sub("--([a-z]+(?:-[a-z]+)*)", lambda m: ARGUMENTS.get(m[1], m[0]), text)
