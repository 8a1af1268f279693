"""Guardrails: metrics that a promoted mixture may not make worse than the baseline by much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guardrail:
    """An allowance for one metric, in its bad direction, against the baseline.

    >>> web = Guardrail("bpb/web", 0.01, relative=True)
    >>> web.allowance(2.0)
    0.02
    >>> Guardrail("accuracy", 0.5, higher=True).excess(61.0, 62.0)
    0.5

    Attributes:
        metric: its full name.
        worse_by: how much worse it may get: in its own unit, or as a share of the baseline's value.
        relative: whether it is a share.
        higher: whether higher values of the metric are better.
    """

    metric: str
    worse_by: float
    relative: bool = False
    higher: bool = False

    @property
    def sign(self) -> int:
        """1 where lower values are better, -1 where higher ones are."""
        return -1 if self.higher else 1

    def allowance(self, baseline: float) -> float:
        """How much worse the metric may get, in its unit, where the baseline has this value."""
        return self.worse_by * abs(baseline) if self.relative else self.worse_by

    def worse(self, value: float, baseline: float) -> float:
        """By how much `value` is worse than the baseline's; below 0 where it is better."""
        return self.sign * (value - baseline)

    def excess(self, value: float, baseline: float) -> float:
        """By how much `value` is worse than allowed; at most 0 where the guardrail holds."""
        return self.worse(value, baseline) - self.allowance(baseline)

    def __str__(self) -> str:
        much = f"{self.worse_by:.4g}"
        if self.relative:
            much = f"{100 * self.worse_by:.4g} %"
        return f"{self.metric} at most {much} worse"
