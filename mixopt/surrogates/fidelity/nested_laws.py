"""Step law → size law → mixture regression: predictions at a scale that nothing was trained at.

The nested use of Data Mixing Laws (2403.16952, section 4): for every mixture the loss at the
target's tokens follows from its curve, the loss at the target's size from the smaller sizes, and a
surrogate of one fidelity is fitted to those.

Shapes: p rows, k mixtures, n asked mixtures, m domains, q metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make
from mixopt.surrogates.base import JointSurrogate, Prediction, Surrogate, checked, in_order, read_at
from mixopt.surrogates.fidelity.extrapolation import (
    Extrapolation,
    extrapolate,
    mixed_correlation,
    recent,
    rms,
)
from mixopt.surrogates.fidelity.power_laws import DRIFT, SIZES, STEPS, Kind

if TYPE_CHECKING:
    from botorch.models.model import Model


@dataclass(frozen=True)
class _Raised:
    """Mixtures with their metrics raised to the target fidelity."""

    table: TrialTable  # at the target fidelity: what was measured there, then what was predicted
    predicted: np.ndarray  # (rows,) which rows are predicted
    own: np.ndarray  # (q,) deviation of a predicted value, apart from what all have in common
    shared: np.ndarray  # (q,) deviation that predicted values have in common
    law: Extrapolation | None = None  # what predicted them, if any


@dataclass(frozen=True)
class _Fitted:
    """The base at one fidelity, and what the laws add to its predictions."""

    base: Surrogate
    shared: np.ndarray  # (q,) deviation that is added to the base's
    noise: np.ndarray  # (q,) deviation of a run
    correlation: np.ndarray | None  # (q, q) of the metrics' errors

    @classmethod
    def of(cls, base: Surrogate, raised: _Raised) -> _Fitted:
        """`base` was fitted to the table of `raised`."""
        prediction = base.predict(raised.table.weights)
        law = raised.law
        if law is None:
            return cls(base, raised.shared, prediction.noise, prediction.correlation)
        part = raised.predicted.mean()
        scatter = np.nan_to_num(prediction.noise)
        # A measured noise does not show how predicted values scatter.
        scatter[[metric in base.noise for metric in prediction.metrics]] = 0.0
        # Like mixtures leave their laws alike: what the base does not see as scatter, it believes.
        believed = part * np.sqrt(np.maximum(raised.own**2 - scatter**2, 0.0))
        # predicted values scatter less than runs, for each is the mean of several
        noise = np.sqrt(
            (1 - part) * np.fmax(prediction.noise, 0.0) ** 2
            + part * np.fmax(prediction.noise, law.noise) ** 2
        )
        own = np.eye(len(noise)) if prediction.correlation is None else prediction.correlation
        parts = [
            (prediction.std, own),
            (noise[None], law.alike),
            (believed[None], law.alike),
            (raised.shared[None], law.tied),
        ]
        return cls(base, np.hypot(raised.shared, believed), noise, mixed_correlation(parts))


class NestedLaws(JointSurrogate):
    """Laws over tokens and size bring every mixture to the target fidelity; `base` does the rest.

    A mixture that was measured at the target, be it on the way to more tokens (`read_at`), keeps
    what was measured. The others follow power laws
    with a shared exponent (`mixopt.surrogates.fidelity.power_laws`): over tokens within their
    size, then over sizes. Where no size was trained for two token counts, one law over
    parameters x tokens is all there is. Trials of one fidelity, asked about that fidelity, are
    handed to `base` as they are.

    The deviation holds the base's, what the laws have in common (their exponent, their mean course
    and how far losses leave them at the target are not known), and what a mixture's own law leaves
    open, as far as the base does not see it as scatter. A run scatters by no less than runs do
    around the laws; what metrics' errors have in common comes from the base, from runs around the
    laws, and from the laws.
    From 70M, 160M and two runs at 305M, the other 305M losses are met within .0095 (5Mix) and .0133
    (RedPajama); 160M x slope^r, its level from the two, .0117 and .0139 (`benchmarks/laws.py`).

    Args:
        seed: see `Surrogate`.
        fidelity: the target; may lie beyond all that was trained.
        noise: see `Surrogate`.
        objective: see `Surrogate`.
        base: registry name of the surrogate of one fidelity. Sizes as above: gp .0091 and .0131,
            effective-data .0089 and .0130 (three pairs of 305M runs).
        drift: how far losses may leave their law at the target, see
            `mixopt.surrogates.fidelity.power_laws.Kind`.
    """

    name: ClassVar[str] = "nested-laws"
    multi_fidelity: ClassVar[bool] = True

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
        base: str = "effective-data",
        drift: float = DRIFT,
    ) -> None:
        super().__init__(seed, fidelity, noise, objective)
        self.base, self.drift = base, drift
        self._table: TrialTable | None = None
        self._target = fidelity
        self._fits: dict[Fidelity, _Fitted] = {}

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; the laws of 1,000 rows take about a second besides the base's fit.

        Raises:
            SurrogateError: the target fidelity cannot be reached from what was measured.
        """
        if not len(table):
            raise SurrogateError("no trial to learn from", hint="Run the search first")
        self._table, self._fits = in_order(table), {}
        self._target = self.fidelity or _most_frequent(table.final)
        self._at(self._target)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`; a new fidelity costs a fit of the base.

        Raises:
            SurrogateError: the fidelity cannot be reached from what was measured.
        """
        weights = checked(mixtures, None if self._table is None else self._table.domains)
        fitted = self._at(fidelity)
        prediction = fitted.base.predict(weights)
        noise = [
            self.noise.get(k, own) for k, own in zip(prediction.metrics, fitted.noise, strict=True)
        ]
        return dataclasses.replace(
            prediction,
            std=np.hypot(prediction.std, fitted.shared),
            noise=np.array(noise),
            correlation=fitted.correlation,
        )

    def mean(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> np.ndarray:
        """See `Surrogate.mean`."""
        weights = checked(mixtures, None if self._table is None else self._table.domains)
        return self._at(fidelity).base.mean(weights)

    @property
    def modelled(self) -> tuple[str, ...]:
        """See `JointSurrogate.modelled`."""
        return self._joint(None).modelled

    @property
    def model(self) -> Model:
        """See `JointSurrogate.model`: the base's, at the target fidelity."""
        return self._joint(None).model

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`, without what all mixtures have in common.

        Raises:
            SurrogateError: `fidelities` are of several kinds: bases are fitted to one at a time.
        """
        if len(set(fidelities or [])) > 1:
            raise SurrogateError(
                f"{self.name} has no covariance between fidelities",
                hint="Ask for one fidelity at a time, or use cokriging or multitask-gp",
            )
        return self._joint(fidelities[0] if fidelities else None).joint(mixtures, objective)

    def _joint(self, fidelity: Fidelity | None) -> JointSurrogate:
        fitted = self._at(fidelity).base.joint_posterior
        if fitted is None:
            raise SurrogateError(
                f"the base {self.base} has no joint posterior",
                hint="Choose base effective-data or gp",
            )
        return fitted

    def _at(self, fidelity: Fidelity | None) -> _Fitted:
        """The base fitted at `fidelity`, the target if None."""
        target = fidelity or self._target
        if self._table is None or target is None:
            raise SurrogateError(
                "predict was called before fit", hint="Fit it to a trial table first"
            )
        if target not in self._fits:
            raised = _raise(read_at(self._table, target.tokens), target, self.noise, self.drift)
            noise = dict(self.noise)
            if raised.predicted.any():
                # a predicted value has more noise than one that was run; the base has one noise for
                # both, the mean over its rows
                share = raised.predicted.mean()
                for metric, own in zip(self._table.metrics, raised.own, strict=True):
                    if metric in noise:
                        noise[metric] = float(np.hypot(noise[metric], np.sqrt(share) * own))
            base = make(
                self.base, seed=self.seed, fidelity=target, noise=noise, objective=self.objective
            )
            self._fits[target] = _Fitted.of(base.fit(raised.table), raised)
        return self._fits[target]


def _most_frequent(table: TrialTable) -> Fidelity:
    """Of equally frequent ones the one with most parameters x tokens."""
    kinds = table.fidelities
    counts = [int(table.at(kind).sum()) for kind in kinds]
    return kinds[max(range(len(kinds)), key=lambda i: (counts[i], i))]


def _raise(
    table: TrialTable, target: Fidelity, noise: Mapping[str, float], drift: float
) -> _Raised:
    """Every mixture of `table` at the fidelity `target`."""
    measured = table.select(table.at(target))
    q = len(table.metrics)
    rest = table.select(~table.at(target))
    if not len(rest):
        return _Raised(measured, np.zeros(len(measured), dtype=bool), np.zeros(q), np.zeros(q))
    known = np.array([noise.get(metric, np.nan) for metric in table.metrics])
    kinds, mixture = np.unique(table.weights, axis=0, return_inverse=True)
    mixture = mixture.ravel()
    steps_law, sizes_law = (dataclasses.replace(kind, drift=drift) for kind in (STEPS, SIZES))
    sizes = np.unique(table.params)
    several = [len(np.unique(table.tokens[table.params == size])) > 1 for size in sizes]
    if any(several):
        levels, own, shared, law = _over_tokens(
            table, mixture, len(kinds), sizes, target, known, steps_law
        )
        axis, end = sizes, float(target.params)
    else:
        axis = np.array([size * table.tokens[table.params == size][0] for size in sizes])
        levels = _measured(table, mixture, len(kinds), table.params[:, None] == sizes[None])
        own, shared, law = np.zeros_like(levels), np.zeros_like(levels), None
        end = float(target.params) * float(target.tokens)
    if (axis == end).all():
        value = levels[0]
        own, shared = own[0], shared[0]
    else:
        value, own, shared, over_sizes = _over_sizes(
            axis, levels, own, shared, end, known, sizes_law
        )
        law = over_sizes or law
    # what was measured at the target stands for itself, row by row
    add = ~np.isin(np.arange(len(kinds)), mixture[table.at(target)]) & np.isfinite(value).any(
        axis=1
    )
    n = int(add.sum())
    new = TrialTable(
        domains=table.domains,
        metrics=table.metrics,
        weights=np.concatenate([measured.weights, kinds[add]]),
        values=np.concatenate([measured.values, value[add]]),
        params=np.full(len(measured) + n, float(target.params)),
        tokens=np.full(len(measured) + n, float(target.tokens)),
        seeds=np.concatenate([measured.seeds, np.zeros(n, dtype=int)]),
    )
    predicted = np.arange(len(new)) >= len(measured)
    # the more of the target was run itself, the less a common error of the laws can shift
    part = predicted.mean()
    return _Raised(new, predicted, rms(own[add]), part * rms(shared[add]), law)


def _measured(table: TrialTable, mixture: np.ndarray, k: int, masks: np.ndarray) -> np.ndarray:
    """(s, k, q) mean of what was measured of every mixture in each column of `masks` (p, s)."""
    levels = np.full((masks.shape[1], k, len(table.metrics)), np.nan)
    for s, mask in enumerate(masks.T):
        for j in np.unique(mixture[mask]):
            values = table.values[mask & (mixture == j)]
            known = np.isfinite(values).any(axis=0)
            levels[s, j, known] = np.nanmean(values[:, known], axis=0)
    return levels


def _over_tokens(
    table: TrialTable,
    mixture: np.ndarray,
    k: int,
    sizes: np.ndarray,
    target: Fidelity,
    noise: np.ndarray,
    kind: Kind,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Extrapolation | None]:
    """Every mixture at the target's tokens: (s, k, q) level, own and shared deviation by size.

    And the law of the largest size that needed one.
    """
    there = table.tokens == target.tokens
    levels = _measured(table, mixture, k, (table.params[:, None] == sizes[None]) & there[:, None])
    own, shared, law = np.zeros_like(levels), np.zeros_like(levels), None
    for s, size in enumerate(sizes):
        rows = np.flatnonzero(table.params == size)
        # short of the target only: a law for all that this size has not measured there
        lacking = np.setdiff1d(mixture[rows], mixture[rows][there[rows]])
        if not len(lacking):
            continue
        if len(np.unique(table.tokens[rows])) < 2:
            if len(sizes) == 1 or size == target.params:
                raise SurrogateError(
                    f"trials of {size:g} parameters were all measured after "
                    f"{table.tokens[rows][0]:g} tokens, asked was {target.tokens:g}",
                    hint="Give their learning curves, or train some of them for other token counts",
                )
            continue  # other sizes tell
        rows = rows[recent(table.tokens[rows], mixture[rows])]
        curves, index = np.unique(mixture[rows], return_inverse=True)
        law = extrapolated = extrapolate(
            table.tokens[rows],
            table.values[rows],
            index.ravel(),
            float(target.tokens),
            kind,
            noise,
        )
        fill = np.isin(curves, lacking)
        levels[s, curves[fill]] = extrapolated.mean[fill]
        own[s, curves[fill]], shared[s, curves[fill]] = (
            extrapolated.own[fill],
            extrapolated.shared[fill],
        )
    return levels, own, shared, law


def _over_sizes(
    axis: np.ndarray,
    levels: np.ndarray,
    own: np.ndarray,
    shared: np.ndarray,
    end: float,
    noise: np.ndarray,
    kind: Kind,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Extrapolation | None]:
    """Every mixture at size `end` from its `levels` (s, k, q) at sizes `axis` (s,).

    Returns:
        level, own and shared deviation, (k, q) each; the law over sizes if one was needed.
    """
    s, j = np.nonzero(np.isfinite(levels).any(axis=2))
    reached = np.unique(axis[s])
    if len(reached) == 1 and reached[0] == end:
        at = int(s[0])
        return levels[at], own[at], shared[at], None
    if len(reached) < 2:
        raise SurrogateError(
            "trials of one size cannot tell of another"
            if len(reached)
            else "no size was trained for, or has curves towards, the tokens that were asked for",
            where="fidelity",
            hint="Train a few mixtures at another size, or give learning curves",
        )
    mixtures, index = np.unique(j, return_inverse=True)
    extrapolated = extrapolate(axis[s], levels[s, j], index.ravel(), end, kind, noise)
    shape = levels.shape[1:]
    value, apart, common = (np.full(shape, np.nan) for _ in range(3))
    # errors of the step laws pass on, at about their size at the nearest size
    near = int(np.argmin(np.abs(np.log(axis / end))))
    value[mixtures], apart[mixtures] = extrapolated.mean, np.hypot(extrapolated.own, rms(own[near]))
    common[mixtures] = np.hypot(extrapolated.shared, rms(shared[near]))
    there = np.flatnonzero(axis == end)
    if len(there):  # reached by the step law at this very size
        direct = levels[there[0]]
        known = np.isfinite(direct)
        value[known] = direct[known]
        apart[known], common[known] = own[there[0]][known], shared[there[0]][known]
    return value, apart, common, extrapolated
