"""Rows of ratios and metrics joined by run, and their weights checked to be mixtures.

Shapes: n rows, m domains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.offline import layouts
from mixopt.offline.layouts import Layout, fact, listed, row_count
from mixopt.offline.sheets import Sheet
from mixopt.offline.weight_columns import EXACT, LOOSE

MOST_PHASES = 20  # of a training, with weights of their own: more are counts


def checked_weights(
    sheet: Sheet, domains: Sequence[str], notes: list[str], absent: Sequence[str] = ()
) -> np.ndarray:
    """(n, m) the columns `domains` as mixtures: each row sums to 1. Appends to `notes`.

    `absent` are domains without a column, named in the fix when rows sum to less than 1.

    Raises:
        RunsError: a weight is missing, negative or not finite, or a row sums to something that
            is not 1 (nor 100 in every row) within .02.
    """
    weights = np.stack([sheet.numbers(domain) for domain in domains], axis=1)
    weights = np.where((weights < 0) & (weights > -EXACT), 0.0, weights)  # rounding of a solver
    for wrong, what, hint in (
        (np.isnan(weights), "the weight is missing", "Write 0 where the domain was not used"),
        (weights < 0, "the weight {} is negative", "Weights are shares of at least 0"),
        (np.isinf(weights), "the weight {} is not finite", "Weights are shares of at least 0"),
    ):
        if wrong.any():
            row, j = np.argwhere(wrong)[0].tolist()
            message = what.format(f"{weights[row, j]:g}")
            raise RunsError(message, where=sheet.where(row, domains[j]), hint=hint)
    sums = weights.sum(axis=1)
    if (np.abs(sums / 100 - 1) <= LOOSE).all():
        weights, sums = weights / 100, sums / 100
        notes.append(f"{sheet.path.name}: weights are percent: every row sums to about 100.")
    off = np.flatnonzero(np.abs(sums - 1) > LOOSE)
    if len(off):
        row = int(off[0])
        largest = domains[int(weights[row].argmax())]
        others = f" (and {len(off) - 1} more rows)" if len(off) > 1 else ""
        raise RunsError(
            f"the weights sum to {sums[row]:.6g}, not 1{others}; the largest is {largest!r} with "
            f"{weights[row].max():g}",
            where=sheet.where(row),
            hint=_advice(sums, absent),
        )
    most = float(np.abs(sums - 1).max())
    if most > EXACT:
        count = int((np.abs(sums - 1) > EXACT).sum())
        notes.append(
            f"{sheet.path.name}: weights of {row_count(count)} did not sum to exactly 1 ("
            f"{_range(sums.min(), sums.max())}): renormalised, by at most {most:.2g}."
        )
    return np.asarray(weights / sums[:, None])


def _advice(sums: np.ndarray, absent: Sequence[str]) -> str:
    """What to do about rows that sum to `sums` (n,)."""
    if absent and (sums < 1 + LOOSE).all():
        return f"Add the column{'s' * (len(absent) > 1)} {listed(list(absent))}"
    if (sums < 1 + LOOSE).all():
        return (
            "Is a domain missing? It may be the rest: add a column with 1 minus the others, or "
            "divide each row by its sum"
        )
    phases = round(float(np.median(sums)))
    if phases > MOST_PHASES:
        return "These look like counts of tokens or documents: divide each row by its sum"
    if phases > 1 and (np.abs(sums - phases) <= LOOSE * phases).all():
        return (
            f"These look like {phases} phases with weights of their own: give one table each, with "
            "the columns of one phase"
        )
    return "Divide each row by its sum, and remove columns that are no domains"


def _range(low: float, high: float) -> str:
    return f"but to {low:.6g}" if f"{low:.6g}" == f"{high:.6g}" else f"from {low:.6g} to {high:.6g}"


def joined(
    left: Sheet, right: Sheet, layout: Layout, weights: np.ndarray, notes: list[str]
) -> tuple[list[str], np.ndarray]:
    """Run names (n,) and pairs (n, 2) of rows of the two sheets that belong together."""
    if layout.ids is None:
        name = layouts.identifier(left)
        names = [f"line{line}" for line in left.lines] if name is None else list(left.cells[name])
        if name is not None:
            kept = _merged(left, name, layouts.APART, layout.metrics, notes)
            _refuse_two_mixtures(left, _keys(left, name, ["params", "model"]), weights)
        else:
            kept = list(range(len(left)))
        return [names[i] for i in kept], np.stack([kept, kept], axis=1)
    # only where no name is spelled alike in both files: 1 and 1.0 of another tool are one run
    numbers = not set(left.cells[layout.ids[0]]) & set(right.cells[layout.ids[1]])
    shared = [k for k in ("params", "model", "seed", "step") if fact(left, k) and fact(right, k)]
    here = _keys(left, layout.ids[0], shared, numbers)
    if len(set(here)) < len(here) and fact(left, "tokens") and fact(right, "tokens"):
        shared.append("tokens")
        here = _keys(left, layout.ids[0], shared, numbers)
    there = _keys(right, layout.ids[1], shared, numbers)
    apart = [k for k in shared if k not in ("step", "tokens")]
    _refuse_two_mixtures(left, _keys(left, layout.ids[0], apart, numbers), weights)
    by_key = _ratios_by_key(left, here, layout, notes)
    kept = _merged(right, layout.ids[1], layouts.APART, layout.metrics, notes, numbers)
    pairs = sorted((by_key[there[j]], j) for j in kept if there[j] in by_key)
    if not pairs:
        raise RunsError(
            f"no run of {left.path.name} is in {right.path.name}: "
            f"{here[0][0]!r} … against {there[0][0]!r} …",
            where=f"{right.path}: {layout.ids[1]}",
            hint="Use the same run names in both files",
        )
    _note_unmatched(left, [k[0] for k in by_key if k not in set(there)], right, notes)
    _note_unmatched(right, [there[j][0] for j in kept if there[j] not in by_key], left, notes)
    return [left.cells[layout.ids[0]][i] for i, _ in pairs], np.array(pairs)


def _keys(
    sheet: Sheet, name: str, kinds: Sequence[str], numbers: bool = False
) -> list[tuple[str, ...]]:
    """(n,) keys of the rows: the run's name, and those of `kinds` that the sheet has."""
    columns = [name, *(c for c in (fact(sheet, kind) for kind in kinds) if c is not None)]
    facts = [[_plain(text) for text in sheet.cells[column]] for column in columns[1:]]
    names = [_plain(text) for text in sheet.cells[name]] if numbers else sheet.cells[name]
    return list(zip(names, *facts, strict=True))


def _plain(text: str) -> str:
    """A fact in the form in which it is compared: 7, 7.0 and 07 are one seed, at any length."""
    found = re.fullmatch(r"0*(\d+?)(?:\.0*)?", text)
    return found[1] if found else text


def _refuse_two_mixtures(sheet: Sheet, keys: list[tuple[str, ...]], weights: np.ndarray) -> None:
    first: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        if not np.allclose(weights[row], weights[other], rtol=0, atol=1e-9):
            raise RunsError(
                f"run {key[0]!r} has other weights than on line {sheet.lines[other]}",
                where=sheet.where(row),
                hint="Give the two runs different names, or remove one of the rows",
            )


def _ratios_by_key(
    sheet: Sheet, keys: list[tuple[str, ...]], layout: Layout, notes: list[str]
) -> dict[tuple[str, ...], int]:
    """The row of each key; of several steps under one key, the last."""
    facts = [c for c in (fact(sheet, kind) for kind in layouts.FACTS) if c is not None]
    step = fact(sheet, "step")
    late = sheet.numbers(step) if step is not None else np.zeros(len(sheet))
    found: dict[tuple[str, ...], int] = {}
    same = 0
    for row, key in enumerate(keys):
        other = found.setdefault(key, row)
        if other == row:
            continue
        if late[row] != late[other]:
            found[key] = row if late[row] > late[other] else other
            continue
        for column in facts:
            if sheet.cells[column][row] != sheet.cells[column][other]:
                raise RunsError(
                    f"run {key[0]!r} has {sheet.cells[column][row]!r}, but "
                    f"{sheet.cells[column][other]!r} on line {sheet.lines[other]}",
                    where=sheet.where(row, column),
                    hint=f"Rename one of the runs, or add the column {column!r} to the metrics too",
                )
        same += 1
    if same:
        notes.append(
            f"{sheet.path.name}: {row_count(same)} repeated with the same content: merged."
        )
    return found


def _merged(
    sheet: Sheet,
    name: str,
    kinds: Sequence[str],
    columns: Sequence[str],
    notes: list[str],
    numbers: bool = False,
) -> list[int]:
    """Rows without exact repetitions of a key; two rows of one key with other values clash."""
    keys = _keys(sheet, name, kinds, numbers)
    first: dict[tuple[str, ...], int] = {}
    kept = []
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        if other == row:
            kept.append(row)
            continue
        for column in columns:
            if sheet.cells[column][row] != sheet.cells[column][other]:
                raise RunsError(
                    f"run {key[0]!r} has other metrics than on line {sheet.lines[other]}",
                    where=sheet.where(row, column),
                    hint="Give repeats different names or a column `seed`, and the points of a "
                    "curve a column `step`" + _pivot(sheet, name, columns),
                )
    if len(kept) < len(keys):
        count = len(keys) - len(kept)
        notes.append(
            f"{sheet.path.name}: {row_count(count)} repeated with the same content: merged."
        )
    return kept


def _pivot(sheet: Sheet, name: str, columns: Sequence[str]) -> str:
    """The fix for a table whose rows several columns of text identify, such as task and split."""
    taken = {*layouts.reserved(sheet), name}
    texts = [c for c in sheet.columns if c not in taken and sheet.is_text(c)]
    if not texts:
        return ""
    call = (
        f"pl.read_csv({sheet.path.name!r}).pivot(on={texts}, index={name!r}, values={[*columns]})"
    )
    return (
        f". To turn a row per run and {' and '.join(texts)} into a row per run, with polars: {call}"
    )


def _note_unmatched(sheet: Sheet, names: list[str], other: Sheet, notes: list[str]) -> None:
    unique = list(dict.fromkeys(names))
    if unique:
        notes.append(
            f"{len(unique)} run{'s' * (len(unique) > 1)} of {sheet.path.name} left out, not in "
            f"{other.path.name}: {listed(unique)}."
        )
