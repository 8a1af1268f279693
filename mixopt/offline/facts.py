"""What finished runs tell besides mixtures and metrics: size, tokens, seed, cost, and their curves.

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


class Facts:
    """What two sheets tell of joined rows besides weights and metrics.

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
        """(n,) the fact `kind` (a key of `layouts.FACTS`), as counts if asked; None if not told.

        Raises:
            RunsError: it is told for some rows only, or is no number.
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
        """(n,) parameters: of their column, else of the models' names, else 1.

        Raises:
            RunsError: models are of several sizes, or may be, and one of them does not tell its.
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
                        f"models are {listed(list(sizes))}, of sizes that their names do not tell",
                        where=f"{sheet.path}: {column}",
                        hint="Add a column model_params with the parameters of each run's model",
                    )
                break
            if unsized:
                row = sheet.cells[column].index(unsized[0])
                raise RunsError(
                    f"the model {unsized[0]!r} does not tell its size",
                    where=sheet.where(row, column),
                    hint="Add a column model_params",
                )
            said = ", ".join(f"{name} {size:.3g}" for name, size in sizes.items())
            notes.append(f"Parameters are read from the models' names: {said}.")
            return np.array([sizes[sheet.cells[column][i]] for i in rows], dtype=float)
        return np.ones(self.n)

    def tokens(self, runs: np.ndarray, notes: list[str]) -> np.ndarray:
        """(n,) tokens seen: of a row of a curve the run's, times step / its last step.

        Steps stand for tokens where these are not told; 1 where neither is.
        """
        tokens, step = self.get("tokens", counts=True), self.get("step")
        if step is None:
            return np.ones(self.n) if tokens is None else tokens
        if tokens is None:
            notes.append("There is no column `tokens`: steps stand for them.")
            return step
        share = _share_done(runs, step, tokens)
        if (share < 1).any():
            notes.append("Tokens of a row on the way are the run's, times step / its last step.")
        return np.asarray(np.round(tokens * share))

    def seeds(self, weights: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """(n,) seeds: of their column, else counting the repeats of a mixture and fidelity."""
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
        return np.asarray(found * _share_done(runs, tokens, found))


def _share_done(runs: np.ndarray, progress: np.ndarray, told: np.ndarray) -> np.ndarray:
    """(n,) `progress` of each row as a share of its run's last; 1 where `told` goes along with it.

    A run that tells the same in all rows of its curve tells what the whole of it came to.
    """
    last: dict[int, float] = defaultdict(float)
    values: dict[int, set[float]] = defaultdict(set)
    for run, at, value in zip(runs.tolist(), progress.tolist(), told.tolist(), strict=True):
        last[run] = max(last[run], at)
        values[run].add(value)
    return np.array(
        [
            at / last[run] if len(values[run]) == 1 and last[run] > 0 else 1.0
            for run, at in zip(runs.tolist(), progress.tolist(), strict=True)
        ]
    )
