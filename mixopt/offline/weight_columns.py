"""Which columns of numbers are weights of domains: those with which rows sum to 1.

A table of mixtures often holds more: a learning rate, a batch size, a loss, a total. A column such
as `lr` hides inside the tolerance of a row's sum, so the sums decide, and not the names alone: a
domain may have the name of a hyperparameter. Shapes: n rows, m columns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mixopt.offline.sheets import Sheet

LOOSE = 0.02  # how far from 1 the rounded weights of a row may sum
EXACT = 1e-6  # sums this near to 1 are not worth a note
FEWEST_ROWS = 5  # with a value in a column, for the sums to rule it out as a domain
TOTALS = (1.0, 100.0)  # shares, percent


def weight_columns(
    sheet: Sheet, columns: Sequence[str], hyperparameters: Collection[str]
) -> list[str]:
    """Those of `columns` that are weights; all of them where the sums do not decide it.

    Args:
        sheet: a table of mixtures.
        columns: m columns of numbers.
        hyperparameters: those of them with names of hyperparameters.

    Raises:
        RunsError: a cell is not a number.
    """
    if not columns:
        return []
    values = np.stack([np.nan_to_num(sheet.numbers(column)) for column in columns], axis=1)
    named = np.array([column in hyperparameters for column in columns])
    for total in TOTALS:
        kept = _weights(values / total, named)
        if kept is not None:
            return [column for column, keep in zip(columns, kept, strict=True) if keep]
    return list(columns)


def _weights(values: np.ndarray, named: np.ndarray) -> np.ndarray | None:
    """(m,) which columns of `values` (n, m) are weights; None if no choice has rows sum to 1."""
    kept = np.asarray(((values <= 1 + LOOSE) & (values >= -EXACT)).all(axis=0))
    kept = _without_named(values, kept, named)
    if _error(values, kept) > LOOSE:
        kept = _without_large(values, kept)
    if _error(values, kept) > LOOSE:
        return None
    return _without_small(values, kept)


def _without_named(values: np.ndarray, kept: np.ndarray, named: np.ndarray) -> np.ndarray:
    """`kept` without all of `named`, if rows sum to 1 more exactly without them."""
    others = kept & ~named
    better = _error(values, others) < _error(values, kept)
    return others if better and others.any() else kept


def _without_large(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`kept` without the one column without which every row sums to 1, if there is just one.

    Two of them would be a guess: of two phases, each alone may sum to 1.
    """
    most = min(LOOSE, _error(values, kept) / 4)
    choices = [_less(kept, j) for j in np.flatnonzero(kept).tolist()]
    fitting = [choice for choice in choices if _error(values, choice) <= most]
    return fitting[0] if len(fitting) == 1 else kept


def _without_small(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`kept` without columns that hide inside the tolerance of the sums.

    Without such a column no row's sum is farther from 1, and the farthest is less than half as far.
    Rounding leaves no domain like that: its rows sum to less without it.
    """
    while _error(values, kept) > EXACT:
        off = np.abs(values[:, kept].sum(axis=1) - 1)
        choices = []
        used = (values != 0).sum(axis=0) >= FEWEST_ROWS
        for j in np.flatnonzero(kept & used).tolist():
            without = np.abs(values[:, _less(kept, j)].sum(axis=1) - 1)
            if (without <= off).all() and without.max() < off.max() / 2:
                choices.append((float(without.max()), j))
        if not choices:
            break
        kept = _less(kept, min(choices)[1])
    return kept


def _less(kept: np.ndarray, column: int) -> np.ndarray:
    return np.asarray(np.where(np.arange(len(kept)) == column, False, kept))


def _error(values: np.ndarray, kept: np.ndarray) -> float:
    """How far from 1 the farthest row sums over the columns `kept`."""
    return float(np.abs(values[:, kept].sum(axis=1) - 1).max())
