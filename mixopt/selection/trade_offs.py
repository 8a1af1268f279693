"""How candidates differ from the baseline in each of the objective's metrics, by the gate's seeds.

The gate decides by the objective alone; of several metrics a person wants to see what each one
gains or pays.

Shapes: k candidates, n seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.selection.comparison import compare
from mixopt.selection.paired import gaps, half_interval

Runs = Mapping[str, Mapping[int, float]]  # candidate → seed → value of a metric


@dataclass(frozen=True)
class TradeOff:
    """A candidate's difference from the baseline in one metric.

    Attributes:
        metric: which.
        difference: mean over the seeds that both finished, in the metric's unit; None without one.
        low: lower end of its two-sided 90 % interval, for this candidate and metric by itself.
        high: its upper end.
        higher: whether higher values of the metric are better.
    """

    metric: str
    difference: float | None
    low: float | None
    high: float | None
    higher: bool = False

    @property
    def better(self) -> bool:
        """Whether the interval lies on the good side of 0."""
        end = self.low if self.higher else self.high
        return end is not None and (end > 0 if self.higher else end < 0)

    @property
    def worse(self) -> bool:
        """Whether the interval lies on the bad side of 0."""
        end = self.high if self.higher else self.low
        return end is not None and (end < 0 if self.higher else end > 0)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-able values; `from_json` gives them back exactly."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TradeOff:
        """What `to_json` described.

        Raises:
            TypeError: `values` are of another shape.
        """
        return cls(**values)


def trade_offs(
    weights: Mapping[str, float], runs: Callable[[str], Runs], rows: Sequence[str], seeds: int
) -> dict[str, tuple[TradeOff, ...]]:
    """By name of the candidate, its difference in each metric; nothing where there is only one.

    Args:
        weights: metric → weight in the objective; of a negative one higher values are better.
        runs: metric → its values by candidate and seed.
        rows: the candidates, the baseline first.
        seeds: that each should have; where all have them, residuals are pooled.
    """
    if len(weights) < 2:
        return {}
    return differences({m: weight < 0 for m, weight in weights.items()}, runs, rows, seeds)


def differences(
    metrics: Mapping[str, bool], runs: Callable[[str], Runs], rows: Sequence[str], seeds: int
) -> dict[str, tuple[TradeOff, ...]]:
    """By name of the candidate, its difference in each metric; arguments as of `trade_offs`.

    Args:
        metrics: metric → whether higher values of it are better.
        runs: metric → its values by candidate and seed.
        rows: the candidates, the baseline first.
        seeds: that each should have.
    """
    found: dict[str, list[TradeOff]] = {name: [] for name in rows[1:]}
    for metric, higher in metrics.items():
        values = runs(metric)
        for name, (difference, half) in _differences(values, rows, seeds).items():
            ends = (_finite(difference - half), _finite(difference + half))
            found[name].append(TradeOff(metric, _finite(difference), *ends, higher=higher))
    return {name: tuple(each) for name, each in found.items()}


def _differences(values: Runs, rows: Sequence[str], seeds: int) -> dict[str, tuple[float, float]]:
    """By candidate, the mean difference and half its 90 % interval."""
    base, *others = rows
    whole = all(len(values[name]) == seeds for name in rows)
    if whole and others and seeds > 1:
        order = list(values[base])
        joint = compare(np.array([[values[name][seed] for seed in order] for name in rows]))
        return {
            name: (float(joint.difference[k]), float(joint.half[k]))
            for k, name in enumerate(others)
        }
    pairs = {name: gaps(values[name], values[base]) for name in others}
    return {
        name: (float(each.mean()) if len(each) else math.nan, half_interval(each))
        for name, each in pairs.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
