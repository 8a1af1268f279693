"""The records of a selection: what its runs show of each candidate, and which one is promoted.

The gate makes them, `mixopt.study.results.Verdict` adds what the search predicted, and every view
reads them. A value that could not be measured is None, in JSON null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mixopt.core.mixture import Mixture
from mixopt.selection.guarded import Guarded
from mixopt.selection.trade_offs import TradeOff


@dataclass(frozen=True)
class Predicted:
    """A predicted value with its 90 % interval.

    Attributes:
        mean: the predicted value.
        std: its standard deviation, for the search's own seed.
        low: lower end of the 90 % interval, for as many fresh seeds as the context names.
        high: its upper end.
    """

    mean: float
    std: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval."""
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, float]:
        """The prediction as JSON-able values; `from_json` gives it back exactly."""
        return {"mean": self.mean, "std": self.std, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Predicted:
        """The prediction that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another shape.
        """
        return cls(*(float(values[key]) for key in ("mean", "std", "low", "high")))

    def turned(self, sign: int) -> Predicted:
        """`sign` (1 or -1) times the value."""
        low, high = interval_turned(self.low, self.high, sign)
        return Predicted(sign * self.mean, self.std, low, high)


@dataclass(frozen=True)
class Candidate:
    """One mixture of a selection, with what the selection's own runs show of it.

    Attributes:
        name: unique within the selection.
        mixture: what was trained on.
        n: seeds that finished.
        mean: mean objective over its seeds; None if none finished.
        std: standard deviation over its seeds; None from fewer than two.
        values: objective of each seed that finished, in the order of the runs.
        difference: mean of objective - baseline's, over the seeds that both finished; 0 for the
            baseline itself, None without a common seed.
        difference_low: lower end of the difference's two-sided 90 % interval, not corrected for
            the number of candidates; None from fewer than two common seeds.
        difference_high: its upper end.
        p: one-sided p-value that the candidate is not better than the baseline.
        adjusted_p: `p` adjusted for the number of candidates, for the best of them is chosen by
            the same runs; None from fewer than two common seeds.
        tokens: training tokens of its runs.
        device_seconds: device time of its runs, all attempts.
        guarded: what its runs show of each guardrail; empty without any, and of the baseline.
        trade_offs: its difference in each metric of the objective; empty of a single metric, and of
            the baseline.
        predicted: the surrogate's prediction of `mean`, from before the runs; its interval is for
            `n` fresh seeds. None before it was made.

    Where every candidate finished every seed, interval and p-values are those of
    `comparison.compare`. Otherwise (seeds that diverged, candidates that were rejected) they are
    of a paired t test, `p` multiplied by the number of candidates (Bonferroni).
    """

    name: str
    mixture: Mixture
    n: int = 0
    mean: float | None = None
    std: float | None = None
    values: tuple[float, ...] = ()
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    tokens: int = 0
    device_seconds: float = 0.0
    guarded: tuple[Guarded, ...] = ()
    trade_offs: tuple[TradeOff, ...] = ()
    predicted: Predicted | None = None

    @property
    def inside(self) -> bool | None:
        """Whether the measured mean lies in the predicted interval; None where either is absent."""
        if self.predicted is None or self.mean is None:
            return None
        return self.predicted.contains(self.mean)

    @property
    def broken(self) -> tuple[Guarded, ...]:
        """The guardrails that it is not shown to keep to."""
        return tuple(it for it in self.guarded if not it.holds)

    def turned(self, sign: int) -> Candidate:
        """The candidate with `sign` (1 or -1) times its objective: as people read it."""
        if sign == 1:
            return self
        low, high = self.difference_low, self.difference_high
        return replace(
            self,
            mean=_times(sign, self.mean),
            values=tuple(sign * value for value in self.values),
            difference=_times(sign, self.difference),
            difference_low=_times(sign, high),
            difference_high=_times(sign, low),
            predicted=None if self.predicted is None else self.predicted.turned(sign),
        )

    def to_json(self) -> dict[str, Any]:
        """The candidate as JSON-able values; `from_json` gives it back exactly."""
        return {
            "name": self.name,
            "mixture": self.mixture.as_dict(),
            "n": self.n,
            "mean": self.mean,
            "std": self.std,
            "values": list(self.values),
            "difference": self.difference,
            "difference_low": self.difference_low,
            "difference_high": self.difference_high,
            "p": self.p,
            "adjusted_p": self.adjusted_p,
            "tokens": self.tokens,
            "device_seconds": self.device_seconds,
            "guarded": [it.to_json() for it in self.guarded],
            "trade_offs": [it.to_json() for it in self.trade_offs],
            "predicted": None if self.predicted is None else self.predicted.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Candidate:
        """The candidate that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `values` are of another shape.
        """
        predicted = values["predicted"]
        return cls(
            name=str(values["name"]),
            mixture=Mixture.exact(values["mixture"]),
            n=int(values["n"]),
            mean=number(values["mean"]),
            std=number(values["std"]),
            values=tuple(float(value) for value in values["values"]),
            difference=number(values["difference"]),
            difference_low=number(values["difference_low"]),
            difference_high=number(values["difference_high"]),
            p=number(values["p"]),
            adjusted_p=number(values["adjusted_p"]),
            tokens=int(values["tokens"]),
            device_seconds=float(values["device_seconds"]),
            guarded=tuple(Guarded.from_json(it) for it in values["guarded"]),
            trade_offs=tuple(TradeOff.from_json(it) for it in values["trade_offs"]),
            predicted=None if predicted is None else Predicted.from_json(predicted),
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a selection ended.

    Attributes:
        baseline: name of the candidate that the others are compared with; the first of them.
        promoted: name of the promoted candidate.
        improved: whether it is better than the baseline at the gate's level.
        reason: a sentence.
        confidence: that the gate was asked for.
        level: adjusted p-value at which it promoted at most; 0 where no look was left.
        look: which of the study's verdicts this is, from 1.
        looks: how many verdicts may promote.
        candidates: the baseline first.
    """

    baseline: str
    promoted: str
    improved: bool
    reason: str
    confidence: float
    level: float
    look: int
    looks: int
    candidates: tuple[Candidate, ...]

    def candidate(self, name: str) -> Candidate | None:
        """The candidate called `name`; None if there is none."""
        return next((it for it in self.candidates if it.name == name), None)

    @property
    def winner(self) -> Candidate:
        """The promoted candidate."""
        return next(it for it in self.candidates if it.name == self.promoted)

    @property
    def mixture(self) -> Mixture:
        """The promoted mixture."""
        return self.winner.mixture


def interval_turned(low: float, high: float, sign: int) -> tuple[float, float]:
    """`sign` (1 or -1) times an interval, its lower end first."""
    return (low, high) if sign == 1 else (-high, -low)


def _times(sign: int, value: float | None) -> float | None:
    return None if value is None else sign * value + 0.0  # no -0.0


def number(value: Any) -> float | None:
    """A measured value from its JSON form.

    Raises:
        TypeError, ValueError: it is neither null nor a number.
    """
    return None if value is None else float(value)
