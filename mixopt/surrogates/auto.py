"""Whichever surrogate foretells held-out trials best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Self

import numpy as np

from mixopt.diagnostics import OBJECTIVE, Score, out_of_fold
from mixopt.errors import SurrogateError
from mixopt.objective import Objective
from mixopt.surrogates.base import Prediction, Surrogate, at_one_fidelity
from mixopt.surrogates.gp import GaussianProcess
from mixopt.surrogates.lightgbm import LightGBM
from mixopt.trials import Fidelity, TrialTable

CHOICES: tuple[type[Surrogate], ...] = (GaussianProcess, LightGBM)


class Auto(Surrogate):
    """Fits each of `gp` and `lightgbm` to folds and keeps the one with the least error.

    Compared by mean absolute error of the objective (of the mean of all metrics if none was
    given); the Gaussian process where trials are too few to hold some out.

    Attributes:
        chosen: the fitted surrogate.
        scores: held-out score of the objective by surrogate name; empty if too few trials.
    """

    name: ClassVar[str] = "auto"

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(seed, fidelity, noise, objective)
        self.chosen: Surrogate | None = None
        self.scores: dict[str, Score] = {}

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; costs five fits of each choice besides."""
        trials = at_one_fidelity(table, self.fidelity)
        objective = self.objective or Objective(dict.fromkeys(trials.metrics, 1.0))
        self.scores = {}
        best: type[Surrogate] = GaussianProcess
        try:
            for kind in CHOICES:
                held = out_of_fold(trials, objective, partial(self._make, kind), seed=self.seed)
                self.scores[kind.name] = held.scores[OBJECTIVE]
            best = min(CHOICES, key=lambda kind: self.scores[kind.name].mae)
        except SurrogateError:
            self.scores = {}  # too few to hold some out; fitting them all may still work
        self.chosen = self._make(best).fit(trials)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        return self._fitted().predict(mixtures, fidelity)

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        return self._fitted().mean(mixtures, fidelity)

    def _fitted(self) -> Surrogate:
        if self.chosen is None:
            raise SurrogateError(
                "predict was called before fit", mend="Fit it to a trial table first"
            )
        return self.chosen

    def _make(self, kind: type[Surrogate]) -> Surrogate:
        return kind(self.seed, self.fidelity, self.noise, self.objective)
