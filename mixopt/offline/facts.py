"""Facts of finished runs besides mixtures and metrics: size, tokens, seed, cost, curves.

Shapes: n rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.offline import layouts
from mixopt.offline.layouts import fact, listed
from mixopt.offline.sheets import Sheet


def run_codes(names: Sequence[str], params: np.ndarray, seed: np.ndarray | None) -> np.ndarray:
    """(n,) a number per run: rows with the same name, size and seed share it."""
    seeds = np.zeros(len(names)) if seed is None else seed
    codes: dict[tuple[str, float, float], int] = {}
    return np.array(
        [
            codes.setdefault((name, p, s), len(codes))
            for name, p, s in zip(names, params.tolist(), seeds.tolist(), strict=True)
        ],
        dtype=int,
    )


class Facts:
    """Facts of joined rows of two sheets, besides weights and metrics.

    Args:
        left: the ratios.
        right: the metrics; it may be the same sheet.
        rows: (n, 2) the rows of the two that belong together.
    """

    def __init__(self, left: Sheet, right: Sheet, rows: np.ndarray) -> None:
        # the sheet of metrics first: its rows are the finer ones
        self.sources = ((right, rows[:, 1]), (left, rows[:, 0]))
        self.n = len(rows)

    def get(self, kind: str, counts: bool = False) -> np.ndarray | None:
        """(n,) the fact `kind` (a key of `layouts.FACTS`); None if no sheet has it.

        Raises:
            RunsError: a cell is empty or not a number.
        """
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
                    hint="Fill it in for every row, or remove the column",
                )
            return np.asarray(found[rows])
        return None

    def params(self, notes: list[str]) -> np.ndarray:
        """(n,) parameters: from their column, else from the models' names, else 1.

        Raises:
            RunsError: there are several models, and the size of one is not in its name.
        """
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
                        f"the names of the models {listed(list(sizes))} do not contain their sizes",
                        where=f"{sheet.path}: {column}",
                        hint="Add a column model_params with the parameters of each run's model",
                    )
                break
            if unsized:
                row = sheet.cells[column].index(unsized[0])
                raise RunsError(
                    f"the name of the model {unsized[0]!r} does not contain its size",
                    where=sheet.where(row, column),
                    hint="Add a column model_params",
                )
            read = ", ".join(f"{name} {size:.3g}" for name, size in sizes.items())
            notes.append(f"Parameters are read from the models' names: {read}.")
            return np.array([sizes[sheet.cells[column][i]] for i in rows], dtype=float)
        return np.ones(self.n)

    def tokens(self, runs: np.ndarray, notes: list[str]) -> np.ndarray:
        """(n,) tokens seen: for a row of a curve, the run's tokens times step / its last step.

        Steps where there are no tokens; 1 where there is neither.
        """
        tokens, step = self.get("tokens", counts=True), self.get("step")
        if step is None:
            return np.ones(self.n) if tokens is None else tokens
        if tokens is None:
            notes.append("There is no column `tokens`: steps are used instead.")
            return step
        share = _share_done(runs, step, tokens)
        if (share < 1).any():
            notes.append("Tokens of a curve's rows: the run's, times step / its last step.")
        return np.asarray(np.round(tokens * share))

    def seeds(self, weights: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """(n,) seeds: from their column, else numbering the repeats of a mixture and fidelity."""
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
        """(n,) cost of each row; a run's single cost is spread over its curve by tokens."""
        found = self.get("cost")
        if found is None:
            return None
        return np.asarray(found * _share_done(runs, tokens, found))


def _share_done(runs: np.ndarray, progress: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(n,) `progress` of each row as a share of its run's last; 1 where `totals` grows by row.

    A run with one value of `totals` in all rows of its curve gives the total of the run.
    """
    last: dict[int, float] = defaultdict(float)
    values: dict[int, set[float]] = defaultdict(set)
    for run, at, value in zip(runs.tolist(), progress.tolist(), totals.tolist(), strict=True):
        last[run] = max(last[run], at)
        values[run].add(value)
    return np.array(
        [
            at / last[run] if len(values[run]) == 1 and last[run] > 0 else 1.0
            for run, at in zip(runs.tolist(), progress.tolist(), strict=True)
        ]
    )
