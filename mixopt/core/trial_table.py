"""Trials as arrays: what surrogates are fitted to. Needs numpy alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.trials import Fidelity, Trial


@dataclass(frozen=True)
class TrialTable:
    """Complete trials as arrays: what a surrogate is fitted to.

    Shapes: n trials, m domains, q metrics.

    Attributes:
        domains: m names, the columns of `weights`.
        metrics: q names, the columns of `values`.
        weights: (n, m) mixture weights.
        values: (n, q) bits per byte; NaN where a trial lacks a metric.
        params: (n,) active parameters of each trial's proxy.
        tokens: (n,) training tokens of each trial.
        seeds: (n,) seeds; rows with equal weights and different seeds are repeats.
        runs: (n,) which training a row was measured on. Rows of one run are its curve: the same
            mixture at fewer `tokens`. Every row its own run if not given.
        noise_std: (n, q) standard deviation of values that were predicted, not measured: a pruned
            trial's expected result. 0 for a measurement, also if not given.
    """

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    weights: np.ndarray
    values: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    seeds: np.ndarray
    runs: np.ndarray = field(default=None)  # type: ignore[arg-type]
    noise_std: np.ndarray = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        if self.runs is None:
            object.__setattr__(self, "runs", np.arange(len(self.weights)))
        if self.noise_std is None:
            object.__setattr__(self, "noise_std", np.zeros(self.values.shape))
        if self.values.shape != (len(self.weights), len(self.metrics)):
            raise SurrogateError(
                f"values of shape {self.values.shape} are not {len(self.weights)} trials' "
                f"{len(self.metrics)} metrics",
                where="values",
            )
        if self.noise_std.shape != self.values.shape:
            raise SurrogateError(
                f"noise_std has shape {self.noise_std.shape}, the values have {self.values.shape}",
                where="noise_std",
                hint="Choose metrics by `with_metrics`, rows by `select`, or replace both",
            )

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def contents(self) -> tuple[Any, ...]:
        """All that a fit learns from, as a key: equal for equal rows, whatever the arrays' types.

        A run is identified by its first row, because its number means nothing.
        """
        _, first, runs = np.unique(self.runs, return_index=True, return_inverse=True)
        given = {f.name: getattr(self, f.name) for f in fields(self)} | {"runs": first[runs]}
        return tuple(
            np.asarray(it, dtype=np.float64).tobytes() if isinstance(it, np.ndarray) else it
            for it in given.values()
        )

    @property
    def fidelities(self) -> list[Fidelity]:
        """The distinct fidelities of the rows, cheapest (parameters x tokens) first."""
        kinds = np.unique(np.stack([self.params, self.tokens], axis=1), axis=0).tolist()
        kinds.sort(key=lambda kind: (kind[0] * kind[1], kind[0]))
        return [Fidelity.of(params, tokens) for params, tokens in kinds]

    def at(self, fidelity: Fidelity) -> np.ndarray:
        """(n,) mask of the rows that were measured at `fidelity`."""
        return np.asarray((self.params == fidelity.params) & (self.tokens == fidelity.tokens))

    @property
    def measured(self) -> TrialTable:
        """Without the rows that were predicted."""
        return self.select(np.flatnonzero((self.noise_std == 0).all(axis=1)))

    @property
    def final(self) -> TrialTable:
        """Without the curves: of every run the row with most tokens."""
        order = np.lexsort((self.tokens, self.runs))
        last = np.append(self.runs[order][1:] != self.runs[order][:-1], True)
        return self.select(np.sort(order[last]))

    @classmethod
    def of(
        cls, trials: Iterable[Trial], metrics: Sequence[str], *, predicted: bool = False
    ) -> TrialTable:
        """The complete ones of `trials` in ledger order; `metrics` names the columns kept.

        Args:
            trials: of a study.
            metrics: q names.
            predicted: whether pruned trials are rows too, with what they would have come to,
                where that is known of one of the metrics.

        Raises:
            SurrogateError: no trial is complete, or they are over different domains.
        """
        done = sorted(
            (
                t
                for t in trials
                if t.complete or (predicted and not t.expected.keys().isdisjoint(metrics))
            ),
            key=lambda t: t.number,
        )
        if not any(t.complete for t in done):
            raise SurrogateError("no trial is complete yet", hint="Run the search first")
        domains = done[0].spec.mixture.domains
        if any(t.spec.mixture.domains != domains for t in done):
            raise SurrogateError("trials are over different domains")
        return cls(
            domains=domains,
            metrics=tuple(metrics),
            weights=np.array([t.spec.mixture.weights for t in done]),
            values=np.array([[_value(t, m)[0] for m in metrics] for t in done]),
            noise_std=np.array([[_value(t, m)[1] for m in metrics] for t in done]),
            params=np.array([t.spec.fidelity.params for t in done], dtype=float),
            tokens=np.array([t.spec.fidelity.tokens for t in done], dtype=float),
            seeds=np.array([t.spec.seed for t in done]),
        )

    def with_metrics(self, names: Sequence[str]) -> TrialTable:
        """Only the metrics `names`, in that order: their values and how unsure they are."""
        columns = [self.metrics.index(name) for name in names]
        return dataclasses.replace(
            self,
            metrics=tuple(names),
            values=self.values[:, columns],
            noise_std=self.noise_std[:, columns],
        )

    def select(self, rows: np.ndarray) -> TrialTable:
        """The trials at `rows` (indices or a boolean mask), in that order."""
        return dataclasses.replace(
            self,
            weights=self.weights[rows],
            values=self.values[rows],
            params=self.params[rows],
            tokens=self.tokens[rows],
            seeds=self.seeds[rows],
            runs=self.runs[rows],
            noise_std=self.noise_std[rows],
        )


def _value(trial: Trial, metric: str) -> tuple[float, float]:
    """What `trial` measured or would have, NaN for neither, and how unsure that is."""
    if trial.complete:
        return trial.metrics.get(metric, math.nan), 0.0
    return trial.expected.get(metric, (math.nan, 0.0))
