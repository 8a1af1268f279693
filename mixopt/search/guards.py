"""Guardrails as a surrogate sees them: how much worse it expects each guarded metric to be.

Shapes: n mixtures, m domains, g guardrails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy.special import log_ndtr

from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.surrogates.base import Surrogate

RISK = 1.0  # deviations added to what is expected: what the gate is to be shown must be likely
SHOWN = 2.0  # standard errors by which the gate's seeds have to lie below the allowance
STEEP = 10.0  # times the range of the trials' objectives, that an excess of one allowance costs


@dataclass(frozen=True)
class Guards:
    """The guardrails of a study, with a surrogate of their metrics.

    Attributes:
        guardrails: g of them.
        surrogate: fitted to their metrics.
        baseline: what they are relative to.
        seeds: that the gate compares: the fewer, the farther below an allowance it can be shown.
        gain: the range of the objective over the trials, in its unit.
    """

    guardrails: Sequence[Guardrail]
    surrogate: Surrogate
    baseline: Mixture
    seeds: int = 3
    gain: float = 1.0

    def excess(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, g) how much worse than allowed each metric is expected to be, and its deviation.

        The deviation is of the mixture's own metric: the baseline is repeated, and known better.
        """
        base, (mean, std, _) = self._at_baseline, self._predicted(weights)
        columns = [
            g.sign * (mean[:, i] - base[i]) - g.allowance(base[i])
            for i, g in enumerate(self.guardrails)
        ]
        return np.stack(columns, axis=1), std

    def predicted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, g) means and deviations of the guarded metrics, in their own units."""
        mean, std, _ = self._predicted(weights)
        return mean, std

    @property
    def limits(self) -> dict[str, float]:
        """Guarded metric → the worst value that is allowed, given the baseline's predicted one."""
        base = self._at_baseline
        return {
            g.metric: float(base[i] + g.sign * g.allowance(base[i]))
            for i, g in enumerate(self.guardrails)
        }

    def penalty(self, weights: np.ndarray, risk: float = RISK) -> np.ndarray:
        """(n,) what is added to the objective: 0 where all are likely to hold, steep beyond.

        Args:
            weights: (n, m) mixtures.
            risk: deviations added to the expected metrics; 0 lets a search look at the border.
        """
        mean, std = self.excess(weights)
        margin = risk * std + (self._to_be_shown if risk else 0.0)
        over = np.maximum(mean + margin, 0.0) / self._scale
        return np.asarray(STEEP * self.gain * over.sum(axis=1))

    def log_feasible(self, weights: np.ndarray) -> np.ndarray:
        """(n,) log of the probability that all hold, their metrics taken as independent."""
        mean, std = self.excess(weights)
        return np.asarray(log_ndtr(-mean / np.maximum(std, 1e-12)).sum(axis=1))

    def holds(self, weights: np.ndarray) -> np.ndarray:
        """(n,) whether all are likely to hold."""
        mean, std = self.excess(weights)
        return np.asarray((mean + RISK * std + self._to_be_shown <= 1e-9).all(axis=1))

    def inside(self, mixture: Mixture, towards: Mixture) -> Mixture:
        """The first mixture from `mixture` `towards` another by which all are likely to hold.

        That other one where there is none.
        """
        if self.holds(mixture.array[None])[0]:
            return mixture
        steps = np.linspace(0.0, 1.0, 65)[:, None]
        way = (1 - steps) * mixture.array + steps * towards.array
        kept = np.flatnonzero(self.holds(way))
        return Mixture.from_array(mixture.domains, way[kept[0] if len(kept) else -1])

    def expected(self, mixture: Mixture) -> dict[str, tuple[float, float]]:
        """By metric, how much worse than the baseline's it is expected to be, and is allowed."""
        base, (mean, _, _) = self._at_baseline, self._predicted(mixture.array[None])
        return {
            g.metric: (g.worse(float(mean[0, i]), float(base[i])), g.allowance(float(base[i])))
            for i, g in enumerate(self.guardrails)
        }

    @cached_property
    def _at_baseline(self) -> np.ndarray:
        """(g,) expected metrics of the baseline."""
        mean, _, _ = self._predicted(self.baseline.array[None])
        return np.asarray(mean[0])

    @cached_property
    def _to_be_shown(self) -> np.ndarray:
        """(g,) how far below its allowance each metric has to be for the gate's seeds to show it.

        0 where the surrogate cannot tell a run's noise from its own error, which holds both.
        """
        _, _, noise = self._predicted(self.baseline.array[None])
        return np.asarray(SHOWN * np.nan_to_num(noise) * np.sqrt(2 / self.seeds))

    @cached_property
    def _scale(self) -> np.ndarray:
        """(g,) an allowance, or where it is 0 a thousandth of the baseline's value."""
        base = self._at_baseline
        allowed = [g.allowance(base[i]) for i, g in enumerate(self.guardrails)]
        return np.asarray(np.maximum(allowed, 1e-3 * np.abs(base) + 1e-12))

    def _predicted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, g) means and deviations of the guarded metrics, and (g,) the noise of a run."""
        found = self.surrogate.predict(weights)
        columns = [list(found.metrics).index(g.metric) for g in self.guardrails]
        return found.mean[:, columns], found.std[:, columns], found.noise[columns]


@dataclass(frozen=True)
class GuardedSpace(MixtureSpace):
    """A mixture space in which mixtures cost what guardrails make of them, for every proposer.

    Attributes:
        guards: as the trials so far show them.
    """

    guards: Guards | None = None

    @classmethod
    def of(cls, space: MixtureSpace, guards: Guards) -> GuardedSpace:
        """`space` with these guardrails."""
        same = {field.name: getattr(space, field.name) for field in fields(MixtureSpace)}
        return cls(**same, guards=guards)

    def log_feasible(self, weights: np.ndarray) -> np.ndarray:
        """(n,) see `Guards.log_feasible`."""
        nothing = super().log_feasible(weights)
        return nothing if self.guards is None else self.guards.log_feasible(weights)

    def own_penalty(self, weights: np.ndarray) -> np.ndarray:
        """(n,) see `MixtureSpace.penalty`: without what guardrails add."""
        return super().penalty(weights)

    def penalty(self, weights: np.ndarray) -> np.ndarray:
        """(n,) see `MixtureSpace.penalty`, and `Guards.penalty`."""
        plain = super().penalty(weights)
        return plain if self.guards is None else plain + self.guards.penalty(weights, risk=0.0)
