"""Whether the order of mixtures at the proxies' size holds at a larger one, as far as noise tells.

The baseline and the best candidates run once more, larger, with seeds of their own. What is asked:
does the order agree with that of the selection, and is the promoted mixture still the better one?

Gains shrink with size: from 1M to 60M parameters metrics have slopes of .49 to .97 (RegMix,
2407.01492). So the order counts as lost only where it disagrees by more than noise would make of
differences half as large.

Shapes: m mixtures, the baseline first; n draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.core.trials import Fidelity
from mixopt.selection.results import interval_turned, number

SHRUNK = 0.5
LEVEL = 0.05  # of each of two tests: together they stop at most a tenth of the studies wrongly
DRAWS = 4000
FREE = 4  # degrees of freedom from which the larger runs' own scatter is taken alone

Runs = Mapping[str, Mapping[int, float]]  # mixture → seed → objective


@dataclass(frozen=True)
class AtSize:
    """A mixture at both sizes.

    Attributes:
        name: of the candidate.
        before: difference to the baseline at the proxies' size; 0 for the baseline.
        mean: objective at the larger size; None where no run has ended well.
        difference: to the baseline there.
        low: lower end of its 90 % interval.
        high: its upper end.
    """

    name: str
    before: float
    mean: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def turned(self, sign: int) -> AtSize:
        """With `sign` (1 or -1) times the objective, as people read a metric."""
        low, high = self.low, self.high
        if low is not None and high is not None:
            low, high = interval_turned(low, high, sign)
        mean = None if self.mean is None else sign * self.mean
        difference = None if self.difference is None else sign * self.difference
        return AtSize(self.name, sign * self.before, mean, difference, low, high)


@dataclass(frozen=True)
class Transfer:
    """What the runs at a larger size show: `transfer.json`.

    Attributes:
        baseline: name of the candidate that the others are compared with.
        promoted: name of the candidate that the gate passed.
        verdict: basis of the verdict that it follows.
        fidelity: the larger size.
        seeds: fresh ones per mixture.
        rows: the baseline first, then the candidates, the promoted one first.
        correlation: rank correlation of both sizes; None where it is not defined.
        order_p: how often noise alone would give one as low or lower.
        gain_p: how often noise alone would make the promoted one no better than the baseline.
        kept: whether the order holds, as far as noise tells.
        reason: a sentence.
        basis: digest of what it follows from.
    """

    baseline: str
    promoted: str
    verdict: str
    fidelity: Fidelity
    seeds: int
    rows: tuple[AtSize, ...]
    correlation: float | None
    order_p: float | None
    gain_p: float | None
    kept: bool
    reason: str
    basis: str

    def turned(self, sign: int) -> Transfer:
        """With `sign` (1 or -1) times the objective, as people read a metric."""
        return replace(self, rows=tuple(row.turned(sign) for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """The content of `transfer.json`; `from_json` gives it back exactly."""
        return {
            "version": 1,
            "baseline": self.baseline,
            "promoted": self.promoted,
            "verdict": self.verdict,
            "model": self.fidelity.model,
            "params": self.fidelity.params,
            "tokens": self.fidelity.tokens,
            "seeds": self.seeds,
            "mixtures": [
                {
                    "name": it.name,
                    "before": it.before,
                    "mean": it.mean,
                    "difference": it.difference,
                    "low": it.low,
                    "high": it.high,
                }
                for it in self.rows
            ],
            "correlation": self.correlation,
            "order_p": self.order_p,
            "gain_p": self.gain_p,
            "kept": self.kept,
            "reason": self.reason,
            "basis": self.basis,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Transfer:
        """The check that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another version or shape.
        """
        if values["version"] != 1:
            raise ValueError(f"version {values['version']} is not 1")
        return cls(
            baseline=str(values["baseline"]),
            promoted=str(values["promoted"]),
            verdict=str(values["verdict"]),
            fidelity=Fidelity(str(values["model"]), int(values["params"]), int(values["tokens"])),
            seeds=int(values["seeds"]),
            rows=tuple(
                AtSize(
                    str(it["name"]),
                    float(it["before"]),
                    *(number(it[key]) for key in ("mean", "difference", "low", "high")),
                )
                for it in values["mixtures"]
            ),
            correlation=number(values["correlation"]),
            order_p=number(values["order_p"]),
            gain_p=number(values["gain_p"]),
            kept=bool(values["kept"]),
            reason=str(values["reason"]),
            basis=str(values["basis"]),
        )


@dataclass(frozen=True)
class Scatter:
    """How far a run lies from its mixture's mean, the seed's own part taken off.

    Attributes:
        std: standard deviation; NaN where it is not known.
        freedom: degrees of freedom.
    """

    std: float
    freedom: int

    @classmethod
    def of(cls, runs: Runs) -> Scatter:
        """From the seeds that all mixtures ran with: what mixture and seed leave unexplained."""
        shared = sorted(set.intersection(*(set(own) for own in runs.values())))
        freedom = (len(runs) - 1) * (len(shared) - 1)
        if freedom < 1:
            return cls(math.nan, 0)
        values = np.array([[own[seed] for seed in shared] for own in runs.values()])  # (m, seeds)
        rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
        return cls(float(np.sqrt((rest**2).sum() / freedom)), freedom)

    def with_more(self, other: Scatter) -> Scatter:
        """This one, pooled with `other` where its own degrees of freedom are few."""
        if self.freedom >= FREE or not other.freedom:
            return self
        freedom = self.freedom + other.freedom
        own = self.freedom * self.std**2 if self.freedom else 0.0
        return Scatter(math.sqrt((own + other.freedom * other.std**2) / freedom), freedom)


@dataclass(frozen=True)
class Agreement:
    """How well two sizes agree.

    Attributes:
        rows: as of `Transfer`.
        correlation: as of `Transfer`.
        order_p: as of `Transfer`.
        gain_p: as of `Transfer`.
        reversal: how often noise would make the promoted mixture no better than the baseline; where
            that is more than `LEVEL`, no check with so few seeds can stop a study by it.
    """

    rows: tuple[AtSize, ...]
    correlation: float | None
    order_p: float | None
    gain_p: float | None
    reversal: float

    @property
    def kept(self) -> bool:
        """Whether noise explains whatever disagrees."""
        tests = (self.order_p, self.gain_p)
        return all(p is not None and p >= LEVEL for p in tests)


def agreement(small: Runs, large: Runs, *, seed: int = 0) -> Agreement:
    """How well the order at a larger size agrees with that at the proxies' size.

    Args:
        small: the baseline first, the promoted mixture second.
        large: the same mixtures; of those without a value nothing is said.
        seed: of the draws.
    """
    first, promoted = list(small)[:2]
    small = _shared(small)
    before = {name: float(np.mean(list(own.values()))) for name, own in small.items()}
    whole = len(large[promoted]) >= len(large[first]) > 0  # what diverges counts against a mixture
    ran = _shared({name: large[name] for name in small if large[name]})
    noise = Scatter.of(small)
    scatter = Scatter.of(ran).with_more(noise) if len(ran) > 1 else noise
    rows = tuple(_row(name, before[name] - before[first], ran, first, scatter) for name in small)
    if not whole or not ran or not scatter.freedom:
        return Agreement(rows, None, None, None, math.nan)
    names = list(ran)
    was = np.array([before[name] for name in names])
    now = np.array([np.mean(list(ran[name].values())) for name in names])
    drawn = _drawn(was, [small[n] for n in names], [ran[n] for n in names], noise, scatter, seed)
    gains = drawn[:, names.index(promoted)] - drawn[:, names.index(first)]
    reversal = float(np.mean(gains >= 0))
    better = now[names.index(promoted)] < now[names.index(first)]
    ranks = _rank_correlations(was, now[None])[0]
    order_p = float(np.mean(_rank_correlations(was, drawn) <= ranks + 1e-9))
    return Agreement(rows, float(ranks), order_p, 1.0 if better else reversal, reversal)


def _shared(runs: Runs) -> dict[str, dict[int, float]]:
    """`runs` with the seeds that all mixtures ran with; none where they share none."""
    shared = set.intersection(*(set(own) for own in runs.values())) if runs else set()
    return {name: {s: own[s] for s in sorted(shared)} for name, own in runs.items() if shared}


def _drawn(
    was: np.ndarray,
    small: Sequence[Mapping[int, float]],
    large: Sequence[Mapping[int, float]],
    noise: Scatter,
    scatter: Scatter,
    seed: int,
) -> np.ndarray:
    """(n, m) means at the larger size, were differences `SHRUNK` and the rest noise."""
    rng = np.random.default_rng(seed)
    spread = [noise if noise.freedom else scatter, scatter]
    stds = [it.std * np.sqrt(it.freedom / rng.chisquare(it.freedom, (DRAWS, 1))) for it in spread]
    root = [np.sqrt([len(own) for own in runs]) for runs in (small, large)]
    true = was + stds[0] / root[0] * rng.standard_normal((DRAWS, len(was)))
    return np.asarray(SHRUNK * true + stds[1] / root[1] * rng.standard_normal((DRAWS, len(was))))


def _rank_correlations(was: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(n,) Spearman's of `was` (m,) with each row of `now` (n, m)."""
    ranks = now.argsort(axis=1).argsort(axis=1).astype(float)
    one = was.argsort().argsort().astype(float)
    centred = one - one.mean()
    return np.asarray((ranks - ranks.mean(axis=1, keepdims=True)) @ centred / (centred @ centred))


def _row(name: str, before: float, ran: Runs, first: str, scatter: Scatter) -> AtSize:
    from scipy.stats import t

    if name not in ran:
        return AtSize(name, before)
    mean = float(np.mean(list(ran[name].values())))
    if name == first or first not in ran:
        return AtSize(name, before, mean, 0.0 if name == first else None)
    difference = mean - float(np.mean(list(ran[first].values())))
    if not scatter.freedom:
        return AtSize(name, before, mean, difference)
    half = float(t.ppf(0.95, scatter.freedom)) * scatter.std * math.sqrt(2 / len(ran[name]))
    return AtSize(name, before, mean, difference, difference - half, difference + half)
