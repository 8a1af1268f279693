"""Long tables of finished runs, a row per run and domain or metric, as tables with a row per run.

    run, domain, weight          →  run, web, code, …
    run, task, step, acc         →  run, step, arc/acc, mmlu/acc, …

A table is long if a column of recurring text labels distinguishes the rows of a run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.offline import layouts
from mixopt.offline.layouts import fact, listed
from mixopt.offline.sheets import Sheet
from mixopt.offline.weight_columns import LOOSE, TOTALS

VALUE = ("value", "values")  # names that do not describe the column


@dataclass(frozen=True)
class Long:
    """A long table.

    Attributes:
        sheet: as it is in the file.
        on: the column that distinguishes the rows of a run.
        keys: columns that name a run and its size, seed and step.
        rows: the rows of each, in the order of the file.
    """

    sheet: Sheet
    on: str
    keys: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def labels(self) -> list[str]:
        """The distinct labels in `on`."""
        return list(dict.fromkeys(self.sheet.cells[self.on]))

    @functools.cached_property
    def numbers(self) -> list[str]:
        """Columns of numbers that are neither keys nor other facts."""
        taken = {*layouts.reserved(self.sheet), *self.keys, self.on}
        return [c for c in self.sheet.columns if c not in taken and not self.sheet.is_text(c)]

    def weights(self) -> str | None:
        """The one column that sums to 1 or 100 over the rows of every run; else None."""
        numbers = self.numbers
        fitting = [column for column in numbers if self._sums_to_one(column)]
        if len(fitting) == 1:
            return fitting[0]
        return numbers[0] if len(numbers) == 1 else None

    def mixtures(self, column: str, notes: list[str]) -> Sheet:
        """A row per run, with a column per label that holds `column`; 0 where a run has no row."""
        return self._wide([column], "0", lambda label, column: label, notes)

    def measures(self, columns: Sequence[str], notes: list[str]) -> Sheet:
        """A row per run, with a column per label and one of `columns`, `label/column`."""
        bare = len(columns) == 1 and columns[0].lower() in VALUE
        return self._wide(
            columns, "", lambda label, column: label if bare else f"{label}/{column}", notes
        )

    def _wide(
        self,
        columns: Sequence[str],
        absent: str,
        named: Callable[[str, str], str],
        notes: list[str],
    ) -> Sheet:
        """A row per run. Appends to `notes`.

        Raises:
            RunsError: a run has a label twice with other values, or a label is also the name of a
                column.
        """
        once = [self._once(rows) for rows in self.rows]
        whole = [c for c in self._constant() if c not in (*self.keys, *columns, self.on)]
        cells = {c: [self.sheet.cells[c][rows[0]] for rows in self.rows] for c in self.keys}
        cells |= {c: [self.sheet.cells[c][rows[0]] for rows in self.rows] for c in whole}
        lines: dict[str, list[int]] = {}
        for column in columns:
            for label in self.labels:
                found = [rows.get(label) for rows in once]
                name = named(label, column)
                if name in cells:
                    raise RunsError(
                        f"{name!r} in column {self.on!r} is the name of a column too",
                        where=f"{self.sheet.path}: {self.on}",
                        hint="Give one of the two another name",
                    )
                cells[name] = [
                    absent if row is None else self.sheet.cells[column][row] for row in found
                ]
                lines[name] = [
                    self.sheet.lines[rows[0] if row is None else row]
                    for row, rows in zip(found, self.rows, strict=True)
                ]
        notes.append(
            f"{self.sheet.path.name}: a long table: {self.on!r} names {listed(self.labels)}; "
            f"{listed(list(columns))} is read for each."
        )
        first = [self.sheet.lines[rows[0]] for rows in self.rows]
        return replace(
            self.sheet,
            columns=tuple(cells),
            cells=cells,
            lines=first,
            cell_lines=lines,
            _parsed={},
        )

    def _once(self, rows: Sequence[int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in rows:
            label = self.sheet.cells[self.on][row]
            other = found.setdefault(label, row)
            if any(self.sheet.cells[c][row] != self.sheet.cells[c][other] for c in self.numbers):
                run = self.sheet.cells[self.keys[0]][row]
                raise RunsError(
                    f"run {run!r} has {label!r} with other numbers than on line "
                    f"{self.sheet.lines[other]}",
                    where=self.sheet.where(row, self.on),
                    hint="Give repeats different names or a column `seed`, and the points of a "
                    "curve a column `step`",
                )
        return found

    def _constant(self) -> list[str]:
        """Columns that hold one and the same cell in all rows of a run, such as its cost."""
        return [
            column
            for column, cells in self.sheet.cells.items()
            if all(len({cells[row] for row in rows}) == 1 for rows in self.rows)
        ]

    def _sums_to_one(self, column: str) -> bool:
        values = np.nan_to_num(self.sheet.numbers(column), posinf=0.0, neginf=0.0)
        sums = np.array(
            [sum(values[row] for row in self._once(rows).values()) for rows in self.rows]
        )
        return any(bool((np.abs(sums / total - 1) <= LOOSE).all()) for total in TOTALS)


def find_long(sheet: Sheet) -> Long | None:
    """`sheet` as a long table; None if it has a row per run."""
    name = layouts.identifier(sheet) or sheet.columns[0]
    facts = [column for kind in layouts.APART if (column := fact(sheet, kind)) is not None]
    keys = tuple(dict.fromkeys([name, *facts]))
    rows: dict[tuple[str, ...], list[int]] = {}
    for row in range(len(sheet)):
        rows.setdefault(tuple(sheet.cells[key][row] for key in keys), []).append(row)
    if len(rows) == len(sheet):
        return None
    groups = tuple(map(tuple, rows.values()))
    taken = {*layouts.reserved(sheet), *keys}
    for column in sheet.columns:
        if column in taken or not sheet.is_text(column) or sheet.missing(column).any():
            continue
        if _tells_apart(sheet.cells[column], groups):
            return Long(sheet, column, keys, groups)
    return None


def _tells_apart(cells: Sequence[str], groups: Sequence[Sequence[int]]) -> bool:
    """Whether most rows of a run have distinct labels that recur in other runs.

    Identical rows count once.
    """
    labels = [[cells[row] for row in rows] for rows in groups]
    different = sum(len(set(row)) for row in labels)
    known = len({label for row in labels for label in row})
    return different > len(groups) and known <= different / 2 and different >= 0.75 * len(cells)
