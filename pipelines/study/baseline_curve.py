"""The learning curve of the baseline's own full run, as a file that the study names.

promote: {baseline_curve: baseline.csv}      tokens, and a column per metric of the objective
promote: {baseline_curve: curve.jsonl}       as a promotion's folder has it
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.counts import parse_count
from mixopt.core.errors import RunsError, StudyError
from mixopt.core.formatting import count
from mixopt.core.objective import Objective
from mixopt.offline.sheets import Sheet, read_sheet
from mixopt.selection.band import BEYOND, Curve, value_at
from mixopt.study.promote import Promote
from mixopt.study.settings import Study

KEY = "promote.baseline_curve"
TOKENS = "tokens"
SHAPE = (
    f"Give a CSV file with a column `{TOKENS}` and a column per metric of the objective, a row per "
    "evaluation; or the curve.jsonl of a promotion"
)

Evaluation = tuple[str, float, Mapping[str, Any]]  # where in the file, tokens, metrics


@dataclass(frozen=True)
class BaselineCurve:
    """The learning curve of the baseline's full run.

    Attributes:
        name: what it is, for a person.
        points: tokens → objective, ascending.
    """

    name: str
    points: Curve

    def note(self, tokens: int, evaluations: int = 0) -> str:
        """How far a full run can be compared with it.

        Args:
            tokens: of the full run.
            evaluations: that it will have, evenly; 0 where that is not known.
        """
        (first, _), (last, _) = self.points[0], self.points[-1]
        line = (
            f"{self.name}: {len(self.points)} evaluation{'s' * (len(self.points) > 1)}, "
            f"{count(first)} to {count(last)} tokens"
        )
        places = [tokens * (i + 1) / evaluations for i in range(evaluations)]
        if places and all(value_at(self.points, place) is None for place in places):
            line += (
                f"; none of the full run's {len(places)} evaluations lies there "
                f"({', '.join(map(count, places))}), so nothing is compared"
            )
        elif last > (1 + BEYOND) * tokens:
            line += (
                f"; the full run ends at {count(tokens)}: a learning rate that decays to another "
                "end makes them differ by more than the mixture"
            )
        elif last < (1 - BEYOND) * tokens:
            line += f"; nothing is compared from there to the full run's end at {count(tokens)}"
        return line


def known_evaluations(promote: Promote) -> int:
    """How many evaluations the full run will have; 0 where a trainer of the user's decides that."""
    return promote.recipe.evaluations if promote.trainer is None else 0


def given_curve(study: Study) -> BaselineCurve | None:
    """The curve that `promote.baseline_curve` names; None where it names none.

    Raises:
        StudyError: it cannot be used, naming file, line and fix.
    """
    if study.promote is None or study.promote.baseline_curve is None:
        return None
    name = study.promote.baseline_curve
    path = study.path.parent / Path(name).expanduser()
    if not path.is_file():
        raise StudyError(
            f"there is no file {path}",
            where=study.place(KEY),
            hint="Name one relative to the study file",
        )
    curve = read_baseline_curve(path, study.mixture_objective())
    if curve[0][0] > study.promote.tokens:
        raise StudyError(
            f"it begins at {count(curve[0][0])} tokens, and the full run ends at "
            f"{count(study.promote.tokens)}",
            where=str(path),
            hint=f"Write `{TOKENS}` as 600000 or 600k, trained since the beginning",
        )
    return BaselineCurve(name, curve)


def read_baseline_curve(path: Path, objective: Objective) -> list[tuple[float, float]]:
    """(tokens, objective) of each evaluation in a file, by tokens.

    Evaluations that lack a metric of the objective are left out.

    Raises:
        StudyError: it cannot be read, its tokens do not rise, a value is no finite number, or no
            evaluation has all metrics.
    """
    read = _evaluations if path.suffix == ".jsonl" else _rows
    points, seen = [], set[str]()
    for where, tokens, metrics in read(path, objective.metrics):
        seen |= metrics.keys()
        needed = {name: metrics[name] for name in objective.metrics if name in metrics}
        for name, value in needed.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise StudyError(
                    f"{name} is {value!r}, no finite number",
                    where=where,
                    hint="Correct it, or leave the evaluation out",
                )
        if len(needed) == len(objective.metrics):
            points.append((tokens, objective.value(needed)))
    if not points:
        has = f"only {', '.join(sorted(seen))}" if seen else "nor any other metric"
        raise StudyError(
            f"no evaluation has {' and '.join(objective.metrics)}, {has}",
            where=str(path),
            hint=SHAPE,
        )
    return points


def _rows(path: Path, metrics: Sequence[str]) -> list[Evaluation]:
    """The rows of a CSV file."""
    try:
        sheet = read_sheet(path)
        columns = {name: _column(sheet, name) for name in metrics}
        numbers = {name: sheet.numbers(column) for name, column in columns.items()}
    except RunsError as error:
        of_a_cell = error.where.startswith(f"{path}:") and not error.where.endswith(":1")
        hint = error.hint if of_a_cell and error.hint else SHAPE
        raise StudyError(error.what, where=error.where, hint=hint) from None
    for column in columns.values():
        _refuse_percent(sheet, column)
    tokens = _risen(sheet)
    found: list[Evaluation] = []
    for row, place in enumerate(tokens):
        values = {name: float(numbers[name][row]) for name in metrics}
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        found.append((sheet.where(row), place, known))
    return found


def _column(sheet: Sheet, metric: str) -> str:
    """The column of a metric, with or without `bpb/`.

    Raises:
        RunsError: there is none.
    """
    for name in (metric, metric.removeprefix("bpb/")):
        if name in sheet.columns:
            return name
    raise RunsError(
        f"no column {metric!r}, only {', '.join(sheet.columns)}", where=f"{sheet.path}:1"
    )


def _refuse_percent(sheet: Sheet, column: str) -> None:
    """Refuse percent signs: whether the study's metric counts hundredths or per cent is not known.

    Raises:
        StudyError: a cell has one.
    """
    for row, text in enumerate(sheet.cells[column]):
        if "%" in text:
            raise StudyError(
                f"{text!r} has a percent sign",
                where=sheet.where(row, column),
                hint="Write numbers in the unit of the study's own metric, without the sign",
            )


def _risen(sheet: Sheet) -> list[float]:
    """The tokens of each row.

    Raises:
        StudyError: there is no such column, a cell is no count, or they do not rise.
    """
    if TOKENS not in sheet.columns:
        raise StudyError(
            f"no column {TOKENS!r}, only {', '.join(sheet.columns)}",
            where=f"{sheet.path}:1",
            hint=SHAPE,
        )
    found: list[float] = []
    for row, text in enumerate(sheet.cells[TOKENS]):
        tokens, where = parse_count(text), sheet.where(row, TOKENS)
        unclear = sheet.numerals.decimal == "," and "." in text  # 2.000: a point between thousands
        if tokens is None or unclear:
            hint = "Write 600000, 600k, 1.5M or 20B in every row"
            raise StudyError(f"{text!r} is no count", where=where, hint=hint)
        if found and tokens <= found[-1]:
            raise StudyError(
                f"{text} comes after {count(found[-1])}: tokens do not rise",
                where=where,
                hint="Sort the rows, and keep one of each evaluation",
            )
        found.append(tokens)
    return found


def _evaluations(path: Path, metrics: Sequence[str]) -> list[Evaluation]:
    """The lines of a curve.jsonl; of two with the same tokens the later, of a resumed run."""
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"it cannot be read: {error}", where=str(path), hint=SHAPE) from None
    found: dict[float, Evaluation] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            if number == len(lines) and not _is_json(line):
                break  # it was cut
            point = json.loads(line)
            tokens = float(point["tokens"])
            values = dict(point.get("on_curve_text") or point["metrics"])
            if not 0 <= tokens < math.inf:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StudyError(
                "the line is no evaluation of a promotion's curve.jsonl, with tokens and metrics",
                where=where,
                hint="Take the file as the promotion's folder has it, or give a CSV file",
            ) from None
        found[tokens] = (where, tokens, values)
    return [found[tokens] for tokens in sorted(found)]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
