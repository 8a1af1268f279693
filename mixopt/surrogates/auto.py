"""Whichever surrogate predicts held-out trials best."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make
from mixopt.surrogates.base import JointSurrogate, Prediction, Surrogate
from mixopt.surrogates.scoring import Choice, choose


class Auto(Surrogate):
    """Compares surrogates on held-out trials and keeps the one that predicts them best.

    Of one fidelity `effective-data`, `gp` and `linear`; where trials are of several, or another one
    is asked for, `cokriging` and `nested-laws` (see `scoring.choose`). Compared on the
    objective, or on the mean of all metrics if none was given.

    Attributes:
        chosen: the fitted surrogate.
        choice: what it was chosen by; None before `fit`.
    """

    name: ClassVar[str] = "auto"
    multi_fidelity: ClassVar[bool] = True
    offers_joint_posterior: ClassVar[bool] = True

    def _clear(self) -> None:
        self.chosen: Surrogate | None = None
        self.choice: Choice | None = None

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; costs three to five fits of each choice besides."""
        objective = self.objective or Objective(dict.fromkeys(table.metrics, 1.0), prefix="")
        settings: dict[str, Any] = {"fidelity": self.fidelity, "noise": self.noise}
        choice = self.choice = choose(table, objective, self.seed, **settings)
        self.chosen = make(choice.name, seed=self.seed, objective=objective, **settings).fit(table)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`; a chosen surrogate of one fidelity predicts that one alone."""
        return self._fitted().predict(mixtures, fidelity)

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        return self._fitted().mean(mixtures, fidelity)

    @property
    def joint_posterior(self) -> JointSurrogate | None:
        """The chosen surrogate's; None if that has none, or before `fit`."""
        return None if self.chosen is None else self.chosen.joint_posterior

    def _fitted(self) -> Surrogate:
        if self.chosen is None:
            raise SurrogateError(
                "predict was called before fit", hint="Fit it to a trial table first"
            )
        return self.chosen
