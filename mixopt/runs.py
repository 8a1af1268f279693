"""Finished runs from elsewhere: two CSV files become a `TrialTable`.

    ratios.csv     run, [model_params, tokens, seed, cost,] a weight per domain
    metrics.csv    run, [step,] a column per metric

Every row that cannot be used is an error naming its line, or is dropped with a note: nothing is
guessed in silence. Shapes: n rows, m domains, q metrics.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixopt import layouts
from mixopt.errors import RunsError
from mixopt.layouts import LOOSE, Layout, fact, listed
from mixopt.sheets import Sheet, read_sheet
from mixopt.trials import TrialTable

EXACT = 1e-6  # sums this near to 1 are not worth a note


@dataclass(frozen=True)
class Runs:
    """Finished runs.

    Attributes:
        table: a row per usable row of the files, in the order of the ratios. `params` and `tokens`
            are 1 where the files do not tell them; rows that share a run are its curve.
        names: (n,) the run's name of each row.
        cost: (n,) what each row cost, in the unit of the file; None if it is not told.
        layout: `olmix`, `regmix` or `admire`.
        notes: what was detected, renormalised, dropped, merged or filled in, a sentence each.
    """

    table: TrialTable
    names: tuple[str, ...]
    cost: np.ndarray | None
    layout: str
    notes: tuple[str, ...]


class Mixtures(NamedTuple):
    """Mixtures that something is asked about: `weights` (n, m) in the order of the domains.

    `params` and `tokens` are (n,), or None where the file does not tell them; `column` is the one
    that `names` (n,) come from.
    """

    weights: np.ndarray
    names: tuple[str, ...]
    params: np.ndarray | None
    tokens: np.ndarray | None
    notes: tuple[str, ...]
    column: str = "run"


def read_runs(ratios: Path, metrics: Path) -> Runs:
    """The finished runs of two CSV files, or of one that holds both (the same path twice).

    Weights are renormalised where rounding has them sum to a little more or less than 1. Metrics
    that are missing stay NaN. Repeats of a mixture under several names stay, the same row twice
    does not.

    Raises:
        RunsError: a file cannot be read, a weight is negative, missing or does not fit the others,
            a cell is no number, or two rows of one run contradict each other; `where` is
            `file.csv:line: column`.
    """
    left = read_sheet(ratios)
    right = left if _same(ratios, metrics) else read_sheet(metrics)
    layout = layouts.detect(left, right)
    notes = [*left.notes, *(right.notes if right is not left else ()), *layout.notes]
    weights = checked_weights(left, layout.domains, notes)
    names, rows = _joined(left, right, layout, weights, notes)
    values = np.stack([right.numbers(metric) for metric in layout.metrics], axis=1)[rows[:, 1]]
    known, values = _measured(values, layout.metrics, names, notes)
    rows, values = rows[known], values[known]
    names = [names[i] for i in np.flatnonzero(known)]
    kept = np.isfinite(values).any(axis=0)
    facts = _Facts(left, right, rows)
    params = facts.params(notes)
    runs = _runs(names, params, facts.get("seed"))
    tokens = facts.tokens(runs, params, notes)
    weights = weights[rows[:, 0]]
    begun = tokens > 0
    if not begun.all():
        notes.append(f"{_rows((~begun).sum())} of step 0 left out: nothing was trained yet.")
    table = TrialTable(
        domains=layout.domains,
        metrics=tuple(m for m, keep in zip(layout.metrics, kept, strict=True) if keep),
        weights=weights,
        values=values[:, kept],
        params=params,
        tokens=tokens,
        seeds=facts.seeds(weights, params, tokens),
        runs=runs,
    )
    cost = facts.cost(runs, tokens)
    table, names = table.select(begun), [n for n, b in zip(names, begun, strict=True) if b]
    notes += _remarks(table)
    return Runs(
        table, tuple(names), None if cost is None else cost[begun], layout.name, tuple(notes)
    )


def read_mixtures(path: Path, domains: Sequence[str]) -> Mixtures:
    """The mixtures of a CSV file over `domains`, in the order of the file.

    A domain that has no column counts as 0 everywhere, a column of another domain must be 0; both
    are noted. Columns of metrics and texts are not looked at.

    Raises:
        RunsError: as `read_runs`, or an unknown domain has weight.
    """
    sheet = read_sheet(path)
    notes = list(sheet.notes)
    present = [domain for domain in domains if domain in sheet.columns]
    if not present:
        raise RunsError(
            "has none of the domains that were fitted",
            where=f"{path}:1",
            mend=f"Name the columns {listed(list(domains))}",
        )
    name = layouts.identifier(sheet)
    skipped = {*layouts.reserved(sheet), *present, *([name] if name else [])}
    others = [c for c in sheet.columns if c not in skipped and not c.startswith(layouts.METRIC)]
    _refuse_unknown(sheet, [c for c in others if not sheet.is_text(c)], domains, notes)
    absent = [domain for domain in domains if domain not in present]
    if absent:
        notes.append(f"{path.name}: no column for {listed(absent)}: taken as 0.")
    weights = np.zeros((len(sheet), len(domains)))
    weights[:, [list(domains).index(d) for d in present]] = checked_weights(sheet, present, notes)
    pairs = np.repeat(np.arange(len(sheet))[:, None], 2, axis=1)
    facts = _Facts(sheet, sheet, pairs)
    names = [str(i + 1) for i in range(len(sheet))] if name is None else sheet.cells[name]
    sized = fact(sheet, "params") is not None or fact(sheet, "model") is not None
    params = facts.params(notes) if sized else None
    if params is not None and (params == 1).all():
        params = None
    tokens = None
    if fact(sheet, "tokens") is not None or fact(sheet, "step") is not None:
        size = np.ones(len(sheet)) if params is None else params
        tokens = facts.tokens(_runs(names, size, facts.get("seed")), size, notes)
    return Mixtures(weights, tuple(names), params, tokens, tuple(notes), name or "run")


def checked_weights(sheet: Sheet, domains: Sequence[str], notes: list[str]) -> np.ndarray:
    """(n, m) the columns `domains` as mixtures: each row sums to 1; `notes` grows.

    Raises:
        RunsError: a weight is missing, negative or not finite, or a row sums to something that
            is not 1 (nor 100 in every row) within .02.
    """
    weights = np.stack([sheet.numbers(domain) for domain in domains], axis=1)
    for wrong, what, mend in (
        (np.isnan(weights), "the weight is missing", "Write 0 where the domain was not used"),
        (weights < 0, "the weight {} is negative", "Weights are shares of at least 0"),
        (np.isinf(weights), "the weight {} is not finite", "Weights are shares of at least 0"),
    ):
        if wrong.any():
            row, j = np.argwhere(wrong)[0].tolist()
            said = what.format(f"{weights[row, j]:g}")
            raise RunsError(said, where=sheet.where(row, domains[j]), mend=mend)
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
            mend="Divide each row by its sum, and remove columns that are no domains",
        )
    most = float(np.abs(sums - 1).max())
    if most > EXACT:
        count = int((np.abs(sums - 1) > EXACT).sum())
        notes.append(
            f"{sheet.path.name}: weights of {_rows(count)} did not sum to exactly 1 (from "
            f"{sums.min():.6g} to {sums.max():.6g}): renormalised, by at most {most:.2g}."
        )
    return np.asarray(weights / sums[:, None])


def _joined(
    left: Sheet, right: Sheet, layout: Layout, weights: np.ndarray, notes: list[str]
) -> tuple[list[str], np.ndarray]:
    """Run names (n,) and pairs (n, 2) of rows of the two sheets that belong together."""
    if layout.ids is None:
        name = layouts.identifier(left)
        names = (
            [f"line{line}" for line in left.lines]
            if name is None
            else [_plain(text) for text in left.cells[name]]
        )
        if name is not None:
            keys = _keys(left, name, [k for k in ("params", "model", "seed", "step", "tokens")])
            kept = _merged(left, keys, layout.metrics, notes, "metrics")
            _refuse_two_mixtures(left, _keys(left, name, ["params", "model"]), weights)
        else:
            kept = list(range(len(left)))
        return [names[i] for i in kept], np.stack([kept, kept], axis=1)
    shared = [k for k in ("params", "model", "seed", "step") if fact(left, k) and fact(right, k)]
    here = _keys(left, layout.ids[0], shared)
    if len(set(here)) < len(here) and fact(left, "tokens") and fact(right, "tokens"):
        shared.append("tokens")
        here = _keys(left, layout.ids[0], shared)
    there = _keys(right, layout.ids[1], shared)
    apart = [k for k in shared if k not in ("step", "tokens")]
    _refuse_two_mixtures(left, _keys(left, layout.ids[0], apart), weights)
    by_key = _ratios_by_key(left, here, layout, notes)
    finer = [k for k in ("params", "model", "seed", "step", "tokens") if fact(right, k)]
    kept = _merged(right, _keys(right, layout.ids[1], finer), layout.metrics, notes, "metrics")
    pairs = sorted((by_key[there[j]], j) for j in kept if there[j] in by_key)
    if not pairs:
        raise RunsError(
            f"no run of {left.path.name} is in {right.path.name}: "
            f"{here[0][0]!r} … against {there[0][0]!r} …",
            where=f"{right.path}: {layout.ids[1]}",
            mend="Call the runs alike in both files",
        )
    _note_unmatched(left, [k[0] for k in by_key if k not in set(there)], right, notes)
    _note_unmatched(right, [there[j][0] for j in kept if there[j] not in by_key], left, notes)
    return [here[i][0] for i, _ in pairs], np.array(pairs)


def _keys(sheet: Sheet, name: str, kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """(n,) what tells the rows apart: the run's name, and those of `kinds` that there are."""
    columns = [name, *(c for c in (fact(sheet, kind) for kind in kinds) if c is not None)]
    return list(zip(*([_plain(t) for t in sheet.cells[column]] for column in columns), strict=True))


def _plain(text: str) -> str:
    """`text` as it is compared: 7, 7.0 and 07 are one name."""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() else text


def _refuse_two_mixtures(sheet: Sheet, keys: list[tuple[str, ...]], weights: np.ndarray) -> None:
    first: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        if not np.allclose(weights[row], weights[other], rtol=0, atol=1e-9):
            raise RunsError(
                f"run {key[0]!r} has other weights than on line {sheet.lines[other]}",
                where=sheet.where(row),
                mend="Give each run a name of its own, or remove one of the two rows",
            )


def _ratios_by_key(
    sheet: Sheet, keys: list[tuple[str, ...]], layout: Layout, notes: list[str]
) -> dict[tuple[str, ...], int]:
    """The row of each key; of several steps that the metrics do not tell apart, the last."""
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
                    mend=f"Name the runs apart, or add the column {column!r} to the metrics too",
                )
        same += 1
    if same:
        notes.append(f"{sheet.path.name}: {_rows(same)} there twice with the same content: merged.")
    return found


def _merged(
    sheet: Sheet, keys: list[tuple[str, ...]], columns: Sequence[str], notes: list[str], what: str
) -> list[int]:
    """Rows without exact repetitions of a key; two rows of one key with other values clash."""
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
                    f"run {key[0]!r} has other {what} than on line {sheet.lines[other]}",
                    where=sheet.where(row, column),
                    mend="Give repeats names of their own or a column `seed`, and the points of a "
                    "curve a column `step`",
                )
    if len(kept) < len(keys):
        count = len(keys) - len(kept)
        notes.append(
            f"{sheet.path.name}: {_rows(count)} there twice with the same content: merged."
        )
    return kept


def _note_unmatched(sheet: Sheet, names: list[str], other: Sheet, notes: list[str]) -> None:
    unique = list(dict.fromkeys(names))
    if unique:
        notes.append(
            f"{len(unique)} run{'s' * (len(unique) > 1)} of {sheet.path.name} left out, not in "
            f"{other.path.name}: {listed(unique)}."
        )


def _measured(
    values: np.ndarray, metrics: Sequence[str], names: Sequence[str], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a metric at all (n,), and `values` with what is not finite as NaN."""
    wild = np.isinf(values).sum(axis=0)
    values = np.where(np.isfinite(values), values, np.nan)
    lacking = np.isnan(values).sum(axis=0)
    for j in np.flatnonzero(wild):
        notes.append(f"{metrics[j]}: {wild[j]} infinite value{'s' * int(wild[j] > 1)} left out.")
    nothing = [m for m, count in zip(metrics, lacking, strict=True) if count == len(values)]
    if len(nothing) == len(metrics):
        raise RunsError("no run has a single metric", mend="Fill in the metrics of some runs")
    if nothing:
        notes.append(f"Metrics that no run has are left out: {listed(nothing)}.")
    gaps = [
        f"{m} ({count})"
        for m, count in zip(metrics, lacking, strict=True)
        if 0 < count < len(values)
    ]
    if gaps:
        notes.append(f"Missing for some runs, whose other metrics are used: {listed(gaps)}.")
    known = np.isfinite(values).any(axis=1)
    empty = [names[i] for i in np.flatnonzero(~known)]
    if empty:
        notes.append(f"{_rows(len(empty))} without any metric left out: {listed(empty)}.")
    return known, values


def _runs(names: Sequence[str], params: np.ndarray, seed: np.ndarray | None) -> np.ndarray:
    """(n,) a number per run: rows of one name, size and seed are one."""
    seeds = np.zeros(len(names)) if seed is None else seed
    codes: dict[tuple[str, float, float], int] = {}
    return np.array(
        [
            codes.setdefault((name, p, s), len(codes))
            for name, p, s in zip(names, params.tolist(), seeds.tolist(), strict=True)
        ],
        dtype=int,
    )


class _Facts:
    """What the two sheets tell of the joined rows besides weights and metrics."""

    def __init__(self, left: Sheet, right: Sheet, rows: np.ndarray) -> None:
        # the sheet of metrics first: its rows are the finer ones
        self.sources = ((right, rows[:, 1]), (left, rows[:, 0]))
        self.n = len(rows)

    def get(self, kind: str, counts: bool = False) -> np.ndarray | None:
        for sheet, rows in self.sources:
            column = fact(sheet, kind)
            if column is None:
                continue
            found = sheet.counts(column) if counts else sheet.numbers(column)
            wrong = np.flatnonzero(~np.isfinite(found))
            if len(wrong):
                raise RunsError(
                    "the value is missing",
                    where=sheet.where(int(wrong[0]), column),
                    mend="Fill it in for every row, or remove the column",
                )
            return np.asarray(found[rows])
        return None

    def params(self, notes: list[str]) -> np.ndarray:
        found = self.get("params", counts=True)
        if found is not None:
            return found
        for sheet, rows in self.sources:
            column = fact(sheet, "model")
            if column is None:
                continue
            sizes = {name: layouts.params_of(name) for name in dict.fromkeys(sheet.cells[column])}
            unsized = [name for name, size in sizes.items() if size is None]
            if len(unsized) == len(sizes):
                if len(sizes) > 1:
                    raise RunsError(
                        f"models are {listed(list(sizes))}, of sizes that their names do not tell",
                        where=f"{sheet.path}: {column}",
                        mend="Add a column model_params with the parameters of each run's model",
                    )
                break
            if unsized:
                row = sheet.cells[column].index(unsized[0])
                raise RunsError(
                    f"the model {unsized[0]!r} does not tell its size",
                    where=sheet.where(row, column),
                    mend="Add a column model_params",
                )
            said = ", ".join(f"{name} {size:.3g}" for name, size in sizes.items())
            notes.append(f"Parameters are read from the models' names: {said}.")
            return np.array([sizes[sheet.cells[column][i]] for i in rows], dtype=float)
        return np.ones(self.n)

    def tokens(self, runs: np.ndarray, params: np.ndarray, notes: list[str]) -> np.ndarray:
        tokens, step = self.get("tokens", counts=True), self.get("step")
        if step is None:
            return np.ones(self.n) if tokens is None else tokens
        if tokens is None:
            notes.append("There is no column `tokens`: steps stand for them.")
            return step
        last: dict[int, float] = defaultdict(float)
        seen: dict[int, set[float]] = defaultdict(set)
        for run, at, count in zip(runs.tolist(), step.tolist(), tokens.tolist(), strict=True):
            last[run] = max(last[run], at)
            seen[run].add(count)
        share = np.array(
            [
                at / last[run] if len(seen[run]) == 1 and last[run] > 0 else 1.0
                for run, at in zip(runs.tolist(), step.tolist(), strict=True)
            ]
        )
        if (share < 1).any():
            notes.append("Tokens of a row on the way are the run's, times step / its last step.")
        return np.round(tokens * share)

    def seeds(self, weights: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        found = self.get("seed")
        if found is not None:
            return found.astype(int)
        seen: dict[bytes, int] = defaultdict(int)
        seeds = np.zeros(self.n, dtype=int)
        for row in range(self.n):
            key = weights[row].tobytes() + np.array([params[row], tokens[row]]).tobytes()
            seeds[row] = seen[key]
            seen[key] += 1
        return seeds

    def cost(self, runs: np.ndarray, tokens: np.ndarray) -> np.ndarray | None:
        """(n,) of each row; where a run tells one cost for its curve, in proportion to tokens."""
        found = self.get("cost")
        if found is None:
            return None
        most: dict[int, float] = defaultdict(float)
        costs: dict[int, set[float]] = defaultdict(set)
        for run, count, cost in zip(runs.tolist(), tokens.tolist(), found.tolist(), strict=True):
            most[run] = max(most[run], count)
            costs[run].add(cost)
        share = [
            t / most[r] if len(costs[r]) == 1 and most[r] > 0 else 1.0
            for r, t in zip(runs.tolist(), tokens.tolist(), strict=True)
        ]
        return np.asarray(found * np.array(share))


def _remarks(table: TrialTable) -> list[str]:
    """What a person should know of the usable rows."""
    said = []
    unused = [d for d, w in zip(table.domains, table.weights.T, strict=True) if not w.any()]
    if unused:
        said.append(f"No run used {listed(unused)}: its effect cannot be known.")
    for metric, column in zip(table.metrics, table.values.T, strict=True):
        known = column[np.isfinite(column)]
        if len(known) > 1 and np.ptp(known) == 0:
            said.append(f"{metric} is {known[0]:g} in every run: it says nothing of mixtures.")
    final = table.final
    where = np.column_stack([final.weights, final.params, final.tokens])
    kinds, count = np.unique(where, axis=0, return_counts=True)
    repeated = int((count > 1).sum())
    if repeated:
        said.append(
            f"{repeated} mixture{'s' * (repeated > 1)} run more than once ({int(count[count > 1].sum())}"
            " runs): kept as repeats, which measure the noise."
        )
    if len(final) < len(table):
        said.append(f"{len(table)} rows are curves of {len(final)} runs.")
    if 1 < len(kinds) < len(table.domains):
        said.append(
            f"{len(kinds)} runs for {len(table.domains)} domains: fewer runs than domains, "
            "expect wide intervals."
        )
    return said


def _refuse_unknown(
    sheet: Sheet, others: list[str], domains: Sequence[str], notes: list[str]
) -> None:
    for column in others:
        used = np.flatnonzero(np.nan_to_num(sheet.numbers(column)) != 0)
        if len(used):
            near = difflib.get_close_matches(column, domains, n=3, cutoff=0.5)
            raise RunsError(
                f"the domain {column!r} has weight, but no run that was fitted used it",
                where=sheet.where(int(used[0]), column),
                mend=f"Did you mean {' or '.join(near)}"
                if near
                else f"Domains are {listed(list(domains))}",
            )
    if others:
        notes.append(f"{sheet.path.name}: {listed(others)}: unknown, but 0 everywhere: left out.")


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _same(a: Path, b: Path) -> bool:
    return a == b or (a.exists() and b.exists() and a.samefile(b))
