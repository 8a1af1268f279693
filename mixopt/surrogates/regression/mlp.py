"""Small neural networks on the mixture and, where there are several, the fidelity.

Shapes: n trials or mixtures, m domains; a group of p metrics measured on k trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.neural_network import MLPRegressor

from mixopt.core.errors import SurrogateError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.per_metric import PerMetric, calibration_factor, folds_of, usual_fidelity

LAYERS = (100, 100)  # DaMo
FOLDS = 5
MEMBERS = 2  # networks per fold, from different starts
ITERATIONS = 60  # of L-BFGS; 200 moved Spearman by .004 at 64 runs (RegMix), in thrice the time
DECAYS = (3e-3, 3e-2)  # penalties on squared weights, per trial


@dataclass(frozen=True)
class _Inputs:
    """√w and the logarithms of parameters and tokens, as far as they vary, standardised."""

    centre: np.ndarray  # (m + 2,)
    scale: np.ndarray  # (m + 2,)
    lowest: np.ndarray  # (2,) least parameters and tokens of the trials
    highest: np.ndarray  # (2,)
    usual: Fidelity

    @classmethod
    def of(cls, trials: TrialTable, usual: Fidelity) -> _Inputs:
        costs = np.stack([trials.params, trials.tokens], axis=1)
        raw = np.concatenate([np.sqrt(trials.weights), np.log(costs)], axis=1)
        spread = raw.std(axis=0)
        m = trials.weights.shape[1]
        # weights by one scale: what hardly varied should not count as much as what did
        spread[:m] = np.sqrt(np.mean(spread[:m] ** 2)) or 1.0
        spread[m:] = np.where(spread[m:] > 1e-9, spread[m:], np.inf)
        return cls(raw.mean(axis=0), spread, costs.min(axis=0), costs.max(axis=0), usual)

    def __call__(self, weights: np.ndarray, costs: np.ndarray) -> np.ndarray:
        raw = np.concatenate([np.sqrt(weights), np.log(costs)], axis=1)
        return np.asarray((raw - self.centre) / self.scale)

    def at(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        """Inputs (n, m + 2) of `weights` (n, m) at a fidelity within those of the trials."""
        wanted = fidelity or self.usual
        cost = np.array([wanted.params, wanted.tokens], dtype=float)
        if (cost < self.lowest).any() or (cost > self.highest).any():
            raise SurrogateError(
                f"{wanted.params:,} parameters and {wanted.tokens:,} tokens lie beyond the trials: "
                f"{self.lowest[0]:,.0f} to {self.highest[0]:,.0f} parameters, "
                f"{self.lowest[1]:,.0f} to {self.highest[1]:,.0f} tokens",
                hint="A network does not extrapolate: choose a surrogate with a law of scale",
            )
        return self(weights, np.broadcast_to(cost, (len(weights), 2)))


@dataclass(frozen=True)
class _Networks:
    """One group: networks that each missed a fold, for all its metrics together."""

    inputs: _Inputs
    networks: tuple[MLPRegressor, ...]
    columns: np.ndarray  # (p,) which output of the networks each metric is
    level: np.ndarray  # (p,)
    unit: np.ndarray  # (p,)
    spread: np.ndarray  # (p,) the deviation of held-out errors that is the same everywhere
    errors: np.ndarray

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        predicted = self._each(self.inputs.at(weights, fidelity))
        return np.asarray(self.level + self.unit * predicted.mean(axis=0))

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        apart = self._each(self.inputs.at(weights, fidelity)).std(axis=0) * self.unit
        return np.asarray(np.hypot(apart, self.spread))

    def _each(self, inputs: np.ndarray) -> np.ndarray:
        return np.stack([_values(network, inputs)[:, self.columns] for network in self.networks])


class MLP(PerMetric):
    """DaMo's network of two layers of 100 (2510.19336), all metrics from one, as an ensemble.

    Two networks without each of five folds; their mean predicts, and what they miss on their folds
    and how far they are apart is the deviation. The decay of the weights is the one that predicts
    the folds best: DaMo has thousands of evaluations to learn from, a swarm has tens.

    Learns from trials of every fidelity, parameters and tokens being inputs as DaMo's checkpoint
    is, and predicts at any within their range.
    """

    name: ClassVar[str] = "mlp"
    multi_fidelity: ClassVar[bool] = True

    def _trials(self, table: TrialTable) -> TrialTable:
        self._usual = self.fidelity or usual_fidelity(table)
        return table

    def _learn(self, trials: TrialTable) -> _Networks:
        order = np.lexsort((*trials.values.T, trials.tokens, trials.params, *trials.weights.T))
        trials = trials.select(order)
        prepare = _Inputs.of(trials, self._usual)
        inputs = prepare(trials.weights, np.stack([trials.params, trials.tokens], axis=1))
        level, unit = trials.values.mean(axis=0), trials.values.std(axis=0)
        # outputs in the order of their names: the start of each depends on its place
        places = np.argsort(trials.metrics, kind="stable")
        values = ((trials.values - level) / unit)[:, places]
        fold = folds_of(trials.weights, FOLDS, self.seed)
        tried = [self._train(inputs, values, fold, decay, member=0) for decay in DECAYS]
        losses = [(_missed(networks, inputs, values, fold) ** 2).mean() for networks in tried]
        best = int(np.argmin(losses))
        more = (
            self._train(inputs, values, fold, DECAYS[best], member) for member in range(1, MEMBERS)
        )
        members = [tried[best], *more]
        missed = np.mean([_missed(each, inputs, values, fold) for each in members], axis=0)
        networks = [network for member in members for network in member]
        whole = calibration_factor(missed, np.ones_like(missed))
        predicted = np.stack([_values(network, inputs) for network in networks])
        # as the networks disagree at the trials: elsewhere more, and there the deviation grows
        rest = whole**2 - predicted.var(axis=0).mean(axis=0)
        spread = np.sqrt(np.maximum(rest, whole**2 / 4))
        errors = np.empty_like(missed)
        errors[order[:, None], places] = missed * unit[places]
        return _Networks(
            inputs=prepare,
            networks=tuple(networks),
            columns=np.argsort(places),
            level=level,
            unit=unit,
            spread=spread[np.argsort(places)] * unit,
            errors=errors,
        )

    def _train(
        self, inputs: np.ndarray, values: np.ndarray, fold: np.ndarray, decay: float, member: int
    ) -> list[MLPRegressor]:
        """A network without each fold; members differ in where they start."""
        networks = []
        for number in range(int(fold.max()) + 1):
            known = fold != number
            start = np.random.default_rng([self.seed, number, member]).integers(2**31)
            network = MLPRegressor(
                hidden_layer_sizes=LAYERS,
                solver="lbfgs",
                alpha=decay * int(known.sum()),
                max_iter=ITERATIONS,
                random_state=int(start),
            )
            targets = values[known] if values.shape[1] > 1 else values[known, 0]
            networks.append(network.fit(inputs[known], targets))
        return networks


def _missed(
    networks: list[MLPRegressor], inputs: np.ndarray, values: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """What the networks without its fold miss of every trial (k, p)."""
    missed = np.empty_like(values)
    for number, network in enumerate(networks):
        out = fold == number
        missed[out] = values[out] - _values(network, inputs[out])
    return missed


def _values(network: MLPRegressor, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(network.predict(inputs), dtype=float).reshape(len(inputs), -1)
