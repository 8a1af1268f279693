"""Whether candidates keep to the guardrails: non-inferiority by the same seeds as the gate's.

A guardrail holds if the metric is shown to be worse than the baseline's by less than is allowed, at
the gate's level, adjusted for the number of candidates: what is not known to hold does not hold.
A candidate must pass every one (intersection-union test, Berger 1982), so that several guardrails
need no further correction.

Shapes: k candidates, n seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Trial
from mixopt.selection.comparison import compare, seeds_to_pass
from mixopt.selection.paired import MOST_SEEDS, half_interval, one_sided_p, seeds_needed

Runs = Mapping[str, Mapping[int, float]]  # candidate → seed → value of a metric


@dataclass(frozen=True)
class Guarded:
    """What a candidate's runs show of one guardrail.

    Attributes:
        metric: that is guarded.
        allowed: by how much it may be worse, in its unit.
        worse: by how much it is, mean over the seeds that both finished; below 0 where it is
            better. None without such a seed.
        low: lower end of the two-sided 90 % interval of `worse`, for this candidate by itself.
        high: its upper end.
        p: p-value, adjusted for the number of candidates, that it is worse by `allowed` or more.
        holds: whether `p` is at most the gate's level.
        seeds: how many would show that it holds, with this difference and scatter; None if none.
    """

    metric: str
    allowed: float
    worse: float | None
    low: float | None
    high: float | None
    p: float | None
    holds: bool
    seeds: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON-able values; `from_json` gives them back exactly."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Guarded:
        """What `to_json` described.

        Raises:
            TypeError: `values` are of another shape.
        """
        return cls(**values)


def keeping_to(
    guardrails: Sequence[Guardrail], trials: Sequence[Trial], baseline: Mixture
) -> list[Trial]:
    """Those of a search's `trials` that keep to the guardrails as they were measured.

    All of them without guardrails, or where the baseline was not measured among them.

    Args:
        guardrails: by which a trial is measured against the baseline's mean.
        trials: complete ones count.
        baseline: the mixture that guardrails are relative to.
    """
    own = [t.metrics for t in trials if t.complete and t.spec.mixture.same_as(baseline)]
    kept = list(trials)
    for guardrail in guardrails:
        base = [metrics[guardrail.metric] for metrics in own if guardrail.metric in metrics]
        if base:
            mean = float(np.mean(base))
            kept = [t for t in kept if _keeps_to(guardrail, t, mean)]
    return kept


def _keeps_to(guardrail: Guardrail, trial: Trial, base: float) -> bool:
    value = trial.metrics.get(guardrail.metric)
    return value is not None and guardrail.excess(value, base) <= 0


def guarded(
    guardrail: Guardrail, runs: Runs, rows: Sequence[str], seeds: Sequence[int], level: float
) -> dict[str, Guarded]:
    """By name of the candidate, whether it keeps to `guardrail`.

    Args:
        guardrail: which.
        runs: values of its metric by candidate and seed.
        rows: the candidates, the baseline first.
        seeds: that each should have.
        level: the largest p-value at which it holds.
    """
    if len(rows) < 2:
        return {}  # nothing is compared with the baseline
    base = runs[rows[0]]
    if all(len(runs[name]) == len(seeds) for name in rows) and len(seeds) > 1:
        return _jointly(guardrail, runs, rows, seeds, level)
    found = {}
    for name in rows[1:]:
        both = [seed for seed in runs[name] if seed in base]
        worse = np.array([guardrail.worse(runs[name][s], base[s]) for s in both])
        excess = np.array([guardrail.excess(runs[name][s], base[s]) for s in both])
        p = one_sided_p(excess) * (len(rows) - 1)
        share = level / (len(rows) - 1)
        found[name] = _found(
            *(guardrail, worse, excess, half_interval(worse), p, level),
            seeds_needed(excess, share),
        )
    return found


def _jointly(
    guardrail: Guardrail, runs: Runs, rows: Sequence[str], seeds: Sequence[int], level: float
) -> dict[str, Guarded]:
    """Where no run is missing: by the residuals of all."""
    base = np.array([runs[rows[0]][seed] for seed in seeds])
    others = np.array([[runs[name][seed] for seed in seeds] for name in rows[1:]])  # (k, n)
    plain = guardrail.sign * np.vstack([base, others])
    allowed = np.array([guardrail.allowance(value) for value in base])
    moved = np.vstack([plain[:1], plain[1:] - allowed])
    shown, tested = compare(plain), compare(moved)
    found = {}
    for row, name in enumerate(rows[1:]):
        asked = seeds_to_pass(moved, row + 1, level, MOST_SEEDS) if level > 0 else None
        worse, excess = plain[row + 1] - plain[0], moved[row + 1] - moved[0]
        half, p = float(shown.half[row]), float(tested.adjusted_p[row])
        found[name] = _found(guardrail, worse, excess, half, p, level, asked)
    return found


def _found(
    guardrail: Guardrail,
    worse: np.ndarray,
    excess: np.ndarray,
    half: float,
    p: float,
    level: float,
    seeds: int | None,
) -> Guarded:
    mean = float(worse.mean()) if len(worse) else math.nan
    allowed = mean - float(excess.mean()) if len(excess) else math.nan
    p = min(1.0, p)
    return Guarded(
        metric=guardrail.metric,
        allowed=allowed if math.isfinite(allowed) else guardrail.worse_by,
        worse=_finite(mean),
        low=_finite(mean - half),
        high=_finite(mean + half),
        p=_finite(p),
        holds=p <= level and level > 0,  # NaN does not
        seeds=seeds,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
