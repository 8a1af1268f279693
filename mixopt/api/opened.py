"""What an opened study and a fit of finished runs have in common: trials, and a model of them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import numpy as np
import polars as pl

from mixopt.api.mixtures import Mixtures, weights_of
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.search.optimum import Recommendation
from mixopt.surrogates.base import Surrogate
from mixopt.surrogates.reliability import Reliability
from mixopt.surrogates.scoring import OBJECTIVE, OutOfFold


class Opened(ABC):
    """Trials, and the surrogate that models them. Nothing is fitted before it is asked for."""

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The weights of the metrics; lower is better."""

    @property
    @abstractmethod
    def space(self) -> MixtureSpace:
        """Where the mixture may lie: bounds, available tokens, constraints, natural mixture."""

    @property
    @abstractmethod
    def trials(self) -> pl.DataFrame:
        """A row per trial: its mixture, what it measured and what it cost."""

    @property
    @abstractmethod
    def curves(self) -> pl.DataFrame:
        """A row per evaluation of each trial: tokens, and metrics by then."""

    @property
    @abstractmethod
    def reliability(self) -> dict[str, Reliability]:
        """By metric, and `objective`, signal over noise as repeats tell it; else they are absent.

        `ratio` is signal over noise, `low` and `high` its 90 % interval, `poor` whether it is under
        2, and `ceiling` the rank correlation that noise lets any prediction reach.
        """

    @abstractmethod
    def _model(self) -> Surrogate:
        """The fitted surrogate that is shared by all who ask."""

    @abstractmethod
    def optimum(self) -> Recommendation:
        """The mixture of the space that the surrogate recommends, and the constraints that bind.

        Its values of the objective are those that people read: see `higher_is_better`.

        Raises:
            SurrogateError: too few trials are complete.
        """

    @abstractmethod
    def out_of_fold(self) -> OutOfFold:
        """Predictions of the trials, each by a surrogate that has not seen its mixture, scored.

        Raises:
            SurrogateError: trials on fewer than four mixtures.
        """

    def surrogate(self) -> Surrogate:
        """The fitted surrogate. It is yours: fit it to other trials as you like.

        Raises:
            SurrogateError: too few trials are complete.
        """
        return copy.copy(self._model())

    def predict(self, mixtures: Mixtures) -> pl.DataFrame:
        """What one run of each mixture will measure.

        Args:
            mixtures: one or several, as `Mixture` or as weights by domain, of which those left out
                are 0; or a frame with a column for every domain (such as `.trials`), whose other
                columns are ignored. Weights that sum to .98 … 1.02 are renormalised.

        Returns:
            A row per mixture: `<metric>_mean` and `<metric>_std` of each metric that is modelled,
            `objective_mean` and `objective_std`, all in the metric's unit. The deviation is that of
            one run: what is not known of the mixture, and the noise of a run where it is known.

        Raises:
            MixtureError: they are no mixtures over the domains of the trials.
            SurrogateError: too few trials are complete.
        """
        model = self._model()
        prediction = model.predict(weights_of(mixtures, self._domains()))
        std = np.hypot(prediction.std, np.nan_to_num(prediction.noise))
        columns: dict[str, np.ndarray] = {}
        for j, metric in enumerate(prediction.metrics):
            columns[f"{metric}_mean"], columns[f"{metric}_std"] = prediction.mean[:, j], std[:, j]
        mean, std = self.objective.compose(
            prediction.mean, std, prediction.metrics, prediction.correlation
        )
        columns |= {f"{OBJECTIVE}_mean": self._sign * mean, f"{OBJECTIVE}_std": std}
        return pl.DataFrame(columns)

    @property
    def higher_is_better(self) -> bool:
        """Whether values of the objective are better higher.

        So it is where all metrics that it weighs are. `objective` itself is lower always.
        """
        return self._sign == -1

    @property
    def _sign(self) -> int:
        """The objective times it is what people read."""
        return self.objective.sign

    @abstractmethod
    def _domains(self) -> tuple[str, ...]:
        """The domains of the trials, in the order of all weights."""
