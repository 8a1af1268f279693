"""Metrics → one number, lower is better, composed after prediction.

A model per metric, weighed after prediction, ranked far better than one model of the weighted sum:
Spearman .96 against .85 on the RegMix table at 512 trials (METHODS A). The two also differ in their
inputs (√w against raw w), so that not all of the gap is due to the order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Trial


@dataclass(frozen=True)
class Objective:
    """A weighted mean of metrics.

    Attributes:
        weights: metric → weight. A name without a slash means `bpb/<name>`. A metric that should
            be large (an accuracy) takes a negative weight. Weights are divided by the sum of their
            absolute values, so that with positive ones the objective is a mean in the same unit.
        prefix: what a name without a slash is short for; empty where names are full already, as
            those of finished runs are.

    Raises:
        StudyError: there is no weight, or one is not finite, or all are 0.
    """

    weights: Mapping[str, float]
    prefix: str = "bpb/"

    def __post_init__(self) -> None:
        named: dict[str, float] = {}
        for name, weight in self.weights.items():
            full = name if "/" in name else f"{self.prefix}{name}"
            if full in named:
                raise StudyError(f"metric {full!r} is named twice", where="objective")
            named[full] = float(weight)
        total = math.fsum(abs(weight) for weight in named.values())
        if not (math.isfinite(total) and total > 0):
            raise StudyError(
                f"the weights {named} are no objective",
                where="objective",
                hint="Give at least one metric a finite weight other than 0",
            )
        kept = {name: weight / total for name, weight in named.items() if weight != 0}
        object.__setattr__(self, "weights", kept)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Full names of the q metrics that count, in order."""
        return tuple(self.weights)

    @property
    def sign(self) -> int:
        """-1 where every metric that is weighed is better higher, else 1.

        People read `sign` times the objective: a mean accuracy, not its negative.
        """
        return -1 if all(weight < 0 for weight in self.weights.values()) else 1

    @property
    def shown(self) -> Objective:
        """The same in the direction that people read: higher is better where `sign` is -1.

        >>> objective = Objective({"accuracy/arc": -1})
        >>> objective.value({"accuracy/arc": 0.4}), objective.shown.value({"accuracy/arc": 0.4})
        (-0.4, 0.4)
        """
        return Objective({name: self.sign * w for name, w in self.weights.items()}, self.prefix)

    @property
    def coefficients(self) -> np.ndarray:
        """(q,) weights in the order of `metrics`; absolute values sum to 1."""
        return np.array(list(self.weights.values()))

    def value(self, metrics: Mapping[str, float]) -> float:
        """The objective of one trial's `metrics`, which may hold more than needed.

        Raises:
            StudyError: a needed metric is missing.
        """
        missing = [name for name in self.weights if name not in metrics]
        if missing:
            raise StudyError(
                f"metric {missing[0]!r} was not measured, only {', '.join(sorted(metrics))}",
                where="objective",
                hint="Name metrics that every trial is evaluated on",
            )
        return math.fsum(weight * metrics[name] for name, weight in self.weights.items())

    def of_trial(self, trial: Trial) -> float | None:
        """The objective of `trial`; None unless it is complete and measured all that is needed."""
        if not trial.complete or any(name not in trial.metrics for name in self.weights):
            return None
        return self.value(trial.metrics)

    def of_table(self, table: TrialTable) -> np.ndarray:
        """(n,) the objective of every trial in `table`; NaN where it lacks a needed metric."""
        return np.asarray(table.values[:, self._columns(table.metrics)] @ self.coefficients)

    def compose(
        self,
        mean: np.ndarray,
        std: np.ndarray,
        metrics: Sequence[str],
        correlation: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n,) of the objective from those of its metrics.

        Args:
            mean: (n, p) predicted means, a column per name in `metrics`.
            std: (n, p) standard deviations.
            metrics: p names, at least those of the objective.
            correlation: (p, p) correlation of the metrics' errors; independent if not given.
                Metrics move together, so that independence understates the deviation of a mean.
        """
        columns = self._columns(metrics)
        spread = std[:, columns] * self.coefficients
        if correlation is None:
            variance = (spread**2).sum(axis=1)
        else:
            tied = correlation[np.ix_(columns, columns)]
            variance = np.einsum("np,pr,nr->n", spread, tied, spread)
        return mean[:, columns] @ self.coefficients, np.sqrt(np.maximum(variance, 0.0))

    def _columns(self, metrics: Sequence[str]) -> list[int]:
        names = list(metrics)
        missing = [name for name in self.weights if name not in names]
        if missing:
            raise StudyError(f"metric {missing[0]!r} is not among {names}", where="objective")
        return [names.index(name) for name in self.weights]
