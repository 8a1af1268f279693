"""Whichever surrogate foretells held-out trials best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from mixopt.diagnostics import Score, choose
from mixopt.errors import SurrogateError
from mixopt.objective import Objective
from mixopt.surrogates import make
from mixopt.surrogates.base import Prediction, Surrogate
from mixopt.trials import Fidelity, TrialTable


class Auto(Surrogate):
    """Fits each of `gp` and `lightgbm` to folds and keeps the one that ranks held-out trials best.

    Compared by Spearman correlation of the objective (of the mean of all metrics if none was
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
        objective = self.objective or Objective(dict.fromkeys(table.metrics, 1.0))
        settings: dict[str, Any] = {"fidelity": self.fidelity, "noise": self.noise}
        choice = choose(table, objective, self.seed, **settings)
        self.scores = choice.scores
        self.chosen = make(choice.name, seed=self.seed, objective=objective, **settings).fit(table)
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
