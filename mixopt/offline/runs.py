"""Finished runs from elsewhere: two CSV files become a `TrialTable`.

    ratios.csv     run, [model_params, tokens, seed, cost,] a weight per domain
    metrics.csv    run, [step,] a column per metric

or the table of trials that a study exports, `trials.csv`, for both.

A row that cannot be used is an error that names its line, or is left out with a note.
Shapes: n rows, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.core.trial_table import TrialTable
from mixopt.offline import layouts
from mixopt.offline.facts import Facts, run_codes
from mixopt.offline.layouts import Layout, fact, listed, row_count
from mixopt.offline.long_tables import find_long
from mixopt.offline.names import suggestion
from mixopt.offline.rows import checked_weights, joined
from mixopt.offline.sheets import Sheet, read_sheet
from mixopt.offline.weight_columns import LOOSE

# Interquartile ranges from the median beyond which a value gets a warning. The farthest of the
# published RegMix, ADMIRE and mixing-law runs, whole curves included, lies 5.5 away.
OUTLYING = 30.0


@dataclass(frozen=True)
class Runs:
    """Finished runs.

    Attributes:
        table: a row per usable row of the files, in the order of the ratios. `params` and `tokens`
            are 1 where the files do not give them; rows that share a run are its curve.
        names: (n,) name of the run of each row.
        cost: (n,) cost of each row, in the unit of the file; None if the files give none.
        layout: `olmix`, `regmix`, `admire`, `prefixed`, `tracker` or `mixopt`.
        notes: what was detected, renormalised, left out, merged or filled in, a sentence each.
    """

    table: TrialTable
    names: tuple[str, ...]
    cost: np.ndarray | None
    layout: str
    notes: tuple[str, ...]

    def notes_with(self, objective: Sequence[str]) -> list[str]:
        """The notes, with those on the `objective` and its directions right after the layout's."""
        layout = next(k for k, note in enumerate(self.notes) if note.startswith(layouts.READ_AS))
        return [*self.notes[: layout + 1], *objective, *self.notes[layout + 1 :]]


class Mixtures(NamedTuple):
    """Mixtures to predict: `weights` (n, m) in the order of the domains.

    `params` and `tokens` are (n,), or None where the file does not give them; `column` is the name
    of the column that `names` (n,) come from.
    """

    weights: np.ndarray
    names: tuple[str, ...]
    params: np.ndarray | None
    tokens: np.ndarray | None
    notes: tuple[str, ...]
    column: str = "run"


def read_runs(ratios: Path, metrics: Path) -> Runs:
    r"""The finished runs of two CSV files, or of one that holds both (the same path twice).

    Weights that sum to nearly 1 are renormalised. Missing metrics are NaN. Repeats of a mixture
    under several names are kept; identical rows are merged.

    Raises:
        RunsError: a file cannot be read, a weight is negative, missing or does not fit the others,
            a cell is not a number, or two rows of one run contradict each other; `where` is
            `file.csv:line: column`.

    Example:
        >>> ratios, metrics = Path("ratios.csv"), Path("metrics.csv")
        >>> lines = "run,web,code", "a,0.8,0.2", "b,0.5,0.5", "c,0.2,0.8"
        >>> _ = ratios.write_text("\n".join(lines))
        >>> _ = metrics.write_text("run,loss\na,2.5\nb,2.4\nc,2.6\n")
        >>> runs = read_runs(ratios, metrics)
        >>> runs.names, runs.table.domains, runs.table.values.ravel().tolist()
        (('a', 'b', 'c'), ('web', 'code'), [2.5, 2.4, 2.6])
        >>> runs.notes[0]
        "Read as olmix's layout: a column per domain, a column per metric, joined on 'run'."
    """
    notes: list[str] = []
    left, right = _sheets(ratios, metrics, notes)
    layout = layouts.detect(left, right)
    notes += layout.notes
    weights = checked_weights(left, layout.domains, notes)
    names, rows = joined(left, right, layout, weights, notes)
    values = np.stack([right.numbers(metric) for metric in layout.metrics], axis=1)[rows[:, 1]]
    metric_names, values = _no_copies(layout, weights[rows[:, 0]], values, metrics, notes)
    known, values = _measured(values, metric_names, names, notes, metrics)
    rows, values = rows[known], values[known]
    names = [names[i] for i in np.flatnonzero(known)]
    kept = np.isfinite(values).any(axis=0)
    facts = Facts(left, right, rows)
    params = facts.params(notes)
    runs = run_codes(names, params, facts.get("seed"))
    tokens = facts.tokens(runs, notes)
    weights = weights[rows[:, 0]]
    begun = tokens > 0
    if not begun.all():
        notes.append(f"{row_count((~begun).sum())} of step 0 left out, from before training.")
    table = TrialTable(
        domains=layout.domain_names,
        metrics=tuple(m for m, keep in zip(metric_names, kept, strict=True) if keep),
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
    r"""The mixtures of a CSV file over `domains`, in the order of the file.

    A domain without a column has weight 0; a column of an unknown domain must be 0; both get a
    note. A column of numbers that brings no row's sum nearer to 1, such as a metric, is left out
    with a note. Columns of text are ignored.

    Raises:
        RunsError: as for `read_runs`, or an unknown domain has weight.

    Example:
        >>> path = Path("mixtures.csv")
        >>> _ = path.write_text("run,web,code\nx,0.75,0.25\n")
        >>> mixtures = read_mixtures(path, ("code", "web", "books"))
        >>> mixtures.weights.tolist(), mixtures.notes
        ([[0.25, 0.75, 0.0]], ('mixtures.csv: no column for books: taken as 0.',))
    """
    sheet = read_sheet(path)
    notes = list(sheet.notes)
    if not set(domains) & {layouts.domain_name(column) for column in sheet.columns}:
        sheet = _mixtures(sheet, notes)
    columns = {layouts.domain_name(c) if layouts.exported(sheet) else c: c for c in sheet.columns}
    present = [domain for domain in domains if domain in columns]
    if not present:
        raise RunsError(
            "has none of the fitted domains",
            where=f"{path}:1",
            hint=f"Name the columns {listed(list(domains))}",
        )
    name = layouts.identifier(sheet)
    held = [columns[domain] for domain in present]
    skipped = {*layouts.reserved(sheet), *held, *([name] if name else [])}
    others = [c for c in sheet.columns if c not in skipped and not c.startswith(layouts.METRIC)]
    numbers = _no_weights(sheet, [c for c in others if not sheet.is_text(c)], held, notes)
    _refuse_unknown(sheet, numbers, domains, notes)
    absent = [domain for domain in domains if domain not in present]
    if absent:
        notes.append(f"{path.name}: no column for {listed(absent)}: taken as 0.")
    weights = np.zeros((len(sheet), len(domains)))
    weights[:, [list(domains).index(d) for d in present]] = checked_weights(
        sheet, held, notes, absent
    )
    pairs = np.repeat(np.arange(len(sheet))[:, None], 2, axis=1)
    facts = Facts(sheet, sheet, pairs)
    names = [str(i + 1) for i in range(len(sheet))] if name is None else sheet.cells[name]
    sized = fact(sheet, "params") is not None or fact(sheet, "model") is not None
    params = facts.params(notes) if sized else None
    if params is not None and (params == 1).all():
        params = None
    tokens = None
    if fact(sheet, "tokens") is not None or fact(sheet, "step") is not None:
        size = np.ones(len(sheet)) if params is None else params
        tokens = facts.tokens(run_codes(names, size, facts.get("seed")), notes)
    return Mixtures(weights, tuple(names), params, tokens, tuple(notes), name or "run")


def _sheets(ratios: Path, metrics: Path, notes: list[str]) -> tuple[Sheet, Sheet]:
    """The two tables with a row per run (and step); one and the same where one file holds both."""
    left = _finished(ratios, notes)
    one = _same(ratios, metrics)
    right = left if one else _finished(metrics, notes)
    wide = _mixtures(left, notes)
    others = find_long(right)
    if others is None or (one and wide is left):
        return wide, right
    measured = [column for column in others.numbers if not one or column != others.weights()]
    return wide, others.measures(measured, notes) if measured else right


def _mixtures(sheet: Sheet, notes: list[str]) -> Sheet:
    """`sheet` with a row per mixture and a column per domain, if it has a row per domain."""
    long = find_long(sheet)
    weights = None if long is None else long.weights()
    return sheet if long is None or weights is None else long.mixtures(weights, notes)


def _finished(path: Path, notes: list[str]) -> Sheet:
    sheet = read_sheet(path)
    notes += sheet.notes
    return layouts.with_steps(layouts.complete(sheet, notes), notes)


def _no_copies(
    layout: Layout, weights: np.ndarray, values: np.ndarray, path: Path, notes: list[str]
) -> tuple[list[str], np.ndarray]:
    """The metrics, and their `values` (n, q), without columns that repeat the domain they name."""
    copies = [
        metric
        for j, metric in enumerate(layout.metrics)
        if metric in layout.domains
        and np.allclose(weights[:, layout.domains.index(metric)], values[:, j], rtol=0, atol=LOOSE)
    ]
    if copies:
        notes.append(f"{path.name}: {listed(copies)}: the weights again, left out.")
    kept = [j for j, metric in enumerate(layout.metrics) if metric not in copies]
    return [layout.metrics[j] for j in kept], values[:, kept]


def _measured(
    values: np.ndarray,
    metrics: Sequence[str],
    names: Sequence[str],
    notes: list[str],
    path: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a metric at all (n,), and `values` with what is not finite as NaN."""
    wild = np.isinf(values).sum(axis=0)
    values = np.where(np.isfinite(values), values, np.nan)
    lacking = np.isnan(values).sum(axis=0)
    for j in np.flatnonzero(wild).tolist():
        notes.append(f"{metrics[j]}: {wild[j]} infinite value{'s' * int(wild[j] > 1)} left out.")
    nothing = [m for m, count in zip(metrics, lacking, strict=True) if count == len(values)]
    if len(nothing) == len(metrics):
        raise RunsError(
            "no run has a single metric", where=str(path), hint="Fill in the metrics of some runs"
        )
    if nothing:
        notes.append(f"Metrics without a value are left out: {listed(nothing)}.")
    gaps = [
        f"{m} ({count})"
        for m, count in zip(metrics, lacking, strict=True)
        if 0 < count < len(values)
    ]
    if gaps:
        notes.append(f"Missing for some runs (their other metrics are used): {listed(gaps)}.")
    known = np.isfinite(values).any(axis=1)
    empty = [names[i] for i in np.flatnonzero(~known).tolist()]
    if empty:
        notes.append(f"{row_count(len(empty))} without any metric left out: {listed(empty)}.")
    return known, values


def _remarks(table: TrialTable) -> list[str]:
    """Notes for the user on the usable rows."""
    notes = []
    unused = [d for d, w in zip(table.domains, table.weights.T, strict=True) if not w.any()]
    if unused:
        notes.append(f"No run used {listed(unused)}: the effect cannot be estimated.")
    for metric, column in zip(table.metrics, table.values.T, strict=True):
        known = column[np.isfinite(column)]
        if len(known) > 1 and np.ptp(known) == 0:
            notes.append(f"{metric} is {known[0]:g} in every run, whatever the mixture.")
        notes += _outlier(metric, known)
    final = table.final
    where = np.column_stack([final.weights, final.params, final.tokens])
    kinds, count = np.unique(where, axis=0, return_counts=True)
    repeated = int((count > 1).sum())
    if repeated:
        runs = int(count[count > 1].sum())
        notes.append(
            f"{repeated} mixture{'s' * (repeated > 1)} run more than once ({runs} runs): kept as "
            "repeats."
        )
    if len(final) < len(table):
        notes.append(f"{len(final)} runs have learning curves: {len(table)} rows.")
    if 1 < len(kinds) < len(table.domains):
        notes.append(
            f"{len(kinds)} runs for {len(table.domains)} domains: intervals are wide "
            "with fewer runs than domains."
        )
    return notes


def _outlier(metric: str, column: np.ndarray) -> list[str]:
    """A warning about values far from the others, such as a loss of 1e30."""
    low, middle, high = np.quantile(column, [0.25, 0.5, 0.75])
    wild = np.abs(column - middle) > OUTLYING * (high - low)
    if not low < high or not wild.any():
        return []
    worst = column[np.abs(column - middle).argmax()]
    return [
        f"WARNING: {metric} has {wild.sum()} value{'s' * int(wild.sum() > 1)} far from the others "
        f"(such as {worst:.4g}; half lie between {low:.4g} and {high:.4g}). Leave out runs that "
        "diverged."
    ]


def _no_weights(
    sheet: Sheet, others: list[str], present: Sequence[str], notes: list[str]
) -> list[str]:
    """`others` without columns that bring no row's sum nearer to 1, and so are no weights."""
    known = np.sum([sheet.numbers(domain) for domain in present], axis=0)
    percent = bool((np.abs(known / 100 - 1) <= LOOSE).all())
    lacking = (100 if percent else 1) - known
    alien = []
    for column in others:
        values = np.nan_to_num(sheet.numbers(column))
        if values.any() and not (np.abs(lacking - values) < np.abs(lacking) - 1e-12).any():
            alien.append(column)
    if alien:
        notes.append(
            f"{sheet.path.name}: {listed(alien)}: left out as no domain: no row sums to 1 with it."
        )
    return [column for column in others if column not in alien]


def _refuse_unknown(
    sheet: Sheet, others: list[str], domains: Sequence[str], notes: list[str]
) -> None:
    for column in others:
        used = np.flatnonzero(np.nan_to_num(sheet.numbers(column)) != 0)
        if len(used):
            raise RunsError(
                f"the domain {column!r} has weight, but no fitted run used it",
                where=sheet.where(int(used[0]), column),
                hint=suggestion(column, domains),
            )
    if others:
        notes.append(f"{sheet.path.name}: {listed(others)}: left out: unknown, and 0 in every row.")


def _same(a: Path, b: Path) -> bool:
    return a == b or (a.exists() and b.exists() and a.samefile(b))
