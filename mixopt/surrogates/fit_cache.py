"""Surrogates that were fitted to a table already, so that none is fitted to it twice."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from mixopt.core.trial_table import TrialTable
from mixopt.surrogates.base import Surrogate, learn

S = TypeVar("S", bound=Surrogate)


class FitCache:
    """The fits to the last table that was asked about.

    A proposer proposes and recommends from the same trials, each time with a fresh surrogate. Fits
    are deterministic, so the second one may take the first one's result. A fit is found again by
    all that it depends on: the surrogate's class, its state before the fit (every setting), and the
    table's contents.

    Fits to earlier tables are dropped: those of 4,096 trials and 20 metrics take gigabytes.
    """

    def __init__(self) -> None:
        self._contents: tuple[Any, ...] | None = None
        self._fits: list[tuple[dict[str, Any], Surrogate]] = []

    def learn(self, surrogate: S, table: TrialTable) -> S:
        """`surrogate` fitted to `table` (see `base.learn`), or its equal that was.

        Raises:
            SurrogateError: too few trials.
        """
        contents = table.contents
        if contents != self._contents:
            self._contents, self._fits = contents, []
        settings = copy.deepcopy(vars(surrogate))
        for known, fitted in self._fits:
            if type(fitted) is type(surrogate) and _equal(known, settings):
                return fitted
        fitted = learn(surrogate, table)
        self._fits.append((settings, fitted))
        return fitted


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two surrogates' attributes are; an object without equality equals only itself."""
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[name])
        if isinstance(value, np.ndarray) or isinstance(other[name], np.ndarray)
        else value == other[name]
        for name, value in one.items()
    )
