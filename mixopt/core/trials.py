"""What passes between search and training: the fidelity and spec of a trial, and its result.

Plain frozen dataclasses over JSON-able values, importable with the standard library and numpy
alone, so that the same types serve the driver, the ledger and a GPU machine that has only torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mixopt.core.mixture import Mixture


class Role(StrEnum):
    """Why a trial was run."""

    DESIGN = "design"  # the initial design
    SEARCH = "search"  # asked for by a proposer
    REPEAT = "repeat"  # the baseline again with another seed, to measure noise
    ENQUEUED = "enqueued"  # asked for by the study file (search.enqueue)
    HOLDOUT = "holdout"  # kept aside: predicted before it runs, and learned from by nothing
    SELECT = "select"  # a finalist or a baseline with a fresh seed
    TRANSFER = "transfer"  # one of these once more at a larger size (select.at)


class State(StrEnum):
    """Where a trial stands. What a surrogate takes for measured comes from COMPLETE ones alone."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped because it would hardly have beaten the best: no failure, no score
    FAILED = "failed"


class Failure(StrEnum):
    """Why a trial failed; each class has its own policy in `mixopt.workers.driver`."""

    DIVERGED = "diverged"  # recorded; the search does not ask for the mixture again
    OUT_OF_MEMORY = "out_of_memory"  # retried with half the micro-batch
    WORKER_LOST = "worker_lost"  # retried elsewhere
    BAD_DATA = "bad_data"  # stops the study, naming file and line
    BROKEN_CONTRACT = "broken_contract"  # a trainer's files are wrong: stops the study, naming them
    GIVEN_UP = "given_up"  # final by a person's decision: `mixopt fail`
    CRASHED = "crashed"  # our bug or theirs: stops the study with the traceback


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What a proxy costs: its size and how long it is trained.

    Two are equal if they cost the same, whatever their models are called:

    >>> Fidelity("proxy", 1_000, 20_000) == Fidelity.of(1e3, 2e4)
    True

    Attributes:
        model: name of the proxy shape in the study file; not compared.
        params: active parameters of that shape, embeddings not counted; 1 where they are not known.
        tokens: training tokens.
    """

    model: str = field(compare=False)
    params: int
    tokens: int

    @property
    def params_known(self) -> bool:
        """Whether the size is known."""
        return self.params > 1

    @classmethod
    def of(cls, params: float, tokens: float) -> Fidelity:
        """The fidelity of a table's row, whose counts are floats; its model has no name."""
        return cls("", round(params), round(tokens))


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One proxy training that is asked for.

    Attributes:
        mixture: the mixture to train on.
        fidelity: at what size and for how many tokens.
        seed: seeds initialization and data order; equal seeds share both (common random numbers).
        role: why it is run.
        round: 0 for the design, 1… for the proposer's rounds; selection goes on counting. Of an
            enqueued one, the last round that was asked for before it.
        candidate: in selection, the name of the mixture that this seed is a pull of; else empty.
    """

    mixture: Mixture
    fidelity: Fidelity
    seed: int
    role: Role = Role.DESIGN
    round: int = 0
    candidate: str = ""

    def same_as(self, other: TrialSpec) -> bool:
        """Whether both ask for the same trial: mixtures may differ by rounding."""
        moved = dataclasses.replace(other, mixture=self.mixture)
        return moved == self and self.mixture.same_as(other.mixture)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON-able values; `from_json` gives it back exactly."""
        return {
            "mixture": self.mixture.as_dict(),
            "fidelity": dataclasses.asdict(self.fidelity),
            "seed": self.seed,
            "role": str(self.role),
            "round": self.round,
            "candidate": self.candidate,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialSpec:
        """The spec that `to_json` described."""
        return cls(
            mixture=Mixture.exact(values["mixture"]),
            fidelity=Fidelity(**values["fidelity"]),
            seed=int(values["seed"]),
            role=Role(values["role"]),
            round=int(values["round"]),
            candidate=str(values["candidate"]),
        )

    def training_hash(self, corpus_hash: str, settings_hash: str) -> str:
        """Identity of the training itself: equal hashes mean bit-equal work, whatever its role."""
        what = [self.mixture.as_dict(), dataclasses.asdict(self.fidelity), self.seed]
        text = json.dumps([what, corpus_hash, settings_hash], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation: bits per byte (and `loss/…`, nats per token) by metric name.

    Attributes:
        step: optimizer steps before it.
        tokens: training tokens before it.
        metrics: what was measured. At the end it may be on other text than on the way.
        seconds: of training before it.
        on_curve_text: where it is, the same metrics on the text of the evaluations on the way.
        training: of the steps since the point before, where it is known: mean `loss` in nats per
            token, mean `grad_norm` before clipping, the last `learning_rate`,
            `tokens_per_second` of training. A trainer of the user's chooses its own names.
    """

    step: int
    tokens: int
    metrics: Mapping[str, float]
    seconds: float = 0.0
    on_curve_text: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, float] = field(default_factory=dict)

    @property
    def comparable(self) -> Mapping[str, float]:
        """The metrics that compare with those of the curve's other points."""
        return self.on_curve_text or self.metrics


@dataclass(frozen=True, slots=True)
class Line:
    """A regression line with what is needed to say how sure it is: y over x, from n points.

    Attributes:
        x: mean of the points.
        y: mean of what they came to.
        slope: of the line.
        error: standard deviation of a point around it.
        spread: sum of squares of x around their mean.
        widen: a deviation from so few points times this holds 90 % where a normal one does.
        n: points.
    """

    x: float
    y: float
    slope: float
    error: float
    spread: float
    widen: float
    n: int

    def at(self, x: float) -> tuple[float, float]:
        """What one more point at `x` comes to, and its standard deviation."""
        away = x - self.x
        std = self.error * math.sqrt(1 + 1 / self.n + away**2 / self.spread)
        return self.y + self.slope * away, self.widen * std


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trial's objective must stay below to be trained on, fixed before it begins.

    So whether it is pruned follows from its own curve alone: not from who happens to end first, nor
    from what a training had seen when it was interrupted.

    Attributes:
        weights: metric → weight in the objective (`Objective.weights`).
        most: (step, the most that the objective may be there), steps ascending.
        reason: what is true of a trial beyond them, for a person.
        ends: by step and metric, from an evaluation there to the end.
    """

    weights: Mapping[str, float]
    most: tuple[tuple[int, float], ...]
    reason: str
    ends: Mapping[int, Mapping[str, Line]] = field(default_factory=dict)

    def hopeless(self, point: CurvePoint) -> str | None:
        """Why a trial with this evaluation is to be stopped; None if it is not.

        An evaluation at another step, or without a metric of the objective, stops nothing.
        """
        limit = dict(self.most).get(point.step)
        if limit is None or any(name not in point.metrics for name in self.weights):
            return None
        value = math.fsum(weight * point.metrics[name] for name, weight in self.weights.items())
        if value <= limit:
            return None
        sign = -1 if all(weight < 0 for weight in self.weights.values()) else 1
        return (
            f"objective {sign * value:.4f} at step {point.step} is "
            f"{'above' if sign == 1 else 'below'} {sign * limit:.4f}: {self.reason}"
        )

    def expected(self, point: CurvePoint) -> dict[str, tuple[float, float]]:
        """Metric → what a trial with this evaluation would end at, and its standard deviation."""
        lines = self.ends.get(point.step, {})
        return {m: line.at(point.metrics[m]) for m, line in lines.items() if m in point.metrics}

    def to_json(self) -> dict[str, Any]:
        """The limits as JSON-able values; `from_json` gives them back exactly."""
        return {
            "weights": dict(self.weights),
            "most": [list(pair) for pair in self.most],
            "reason": self.reason,
            "ends": {
                str(step): {metric: dataclasses.asdict(line) for metric, line in lines.items()}
                for step, lines in self.ends.items()
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Limits:
        """The limits that `to_json` described."""
        ends = {
            int(step): {metric: Line(**line) for metric, line in lines.items()}
            for step, lines in values["ends"].items()
        }
        most = tuple((int(step), float(limit)) for step, limit in values["most"])
        return cls(dict(values["weights"]), most, str(values["reason"]), ends)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a trial spent. `device_seconds` counts every attempt, `tokens` only the kept ones."""

    tokens: int = 0
    device_seconds: float = 0.0
    flops: float = 0.0

    def plus(self, other: Cost) -> Cost:
        """What both spent together."""
        return Cost(
            self.tokens + other.tokens,
            self.device_seconds + other.device_seconds,
            self.flops + other.flops,
        )


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a worker returns for a finished proxy, or for a pruned one of the part that it trained.

    Attributes:
        metrics: `bpb/<domain>` in bits per byte, `loss/<domain>` in nats per token; of tasks
            `task/<name>` in bits per byte and `accuracy/<name>`.
        curve: evaluations on the way, oldest first, the last one equal to `metrics`.
        cost: what it spent.
        loads: expert load per domain: domain → share of assignments per expert (sums to 1).
        environment: package and code versions, device.
        entropies: domain → nats of entropy of a token's gates, mean over tokens and layers.
        dropped: domain → share of tokens that reach no expert, mean over layers.
        expected: of a pruned proxy, metric → what it would have measured, and its deviation.
    """

    metrics: Mapping[str, float]
    curve: Sequence[CurvePoint]
    cost: Cost
    loads: Mapping[str, Sequence[float]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    entropies: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-able values; `from_json` gives it back exactly."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialResult:
        """The result that `to_json` described."""
        return cls(
            metrics=dict(values["metrics"]),
            curve=tuple(CurvePoint(**point) for point in values["curve"]),
            cost=Cost(**values["cost"]),
            loads={name: tuple(load) for name, load in values["loads"].items()},
            environment=dict(values["environment"]),
            entropies=dict(values["entropies"]),
            dropped=dict(values["dropped"]),
            expected={m: (float(a), float(b)) for m, (a, b) in values["expected"].items()},
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one proxy of a training: a result, or why there is none.

    Attributes:
        result: None if it failed.
        failure: None if it did not.
        message: what happened, for a person.
        pruned: whether it was stopped before its end; `result` is then of its last evaluation.
    """

    result: TrialResult | None
    failure: Failure | None = None
    message: str = ""
    pruned: bool = False

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON-able values; `from_json` gives it back exactly."""
        return {
            "result": None if self.result is None else self.result.to_json(),
            "failure": None if self.failure is None else str(self.failure),
            "message": self.message,
            "pruned": self.pruned,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` described."""
        result, failure = values["result"], values["failure"]
        return cls(
            None if result is None else TrialResult.from_json(result),
            None if failure is None else Failure(failure),
            str(values["message"]),
            bool(values["pruned"]),
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A spec with its number in the ledger and, once it has one, its result.

    Of a PRUNED trial `result` is what it had spent and measured when it was stopped: its cost
    counts, its measurements are no final ones.
    """

    number: int
    spec: TrialSpec
    state: State = State.WAITING
    result: TrialResult | None = None
    failure: Failure | None = None
    message: str = ""
    attempts: int = 0
    limits: Limits | None = None
    held: bool = False  # its worker was lost too often: a person decides whether it runs again
    started: float | None = None  # when its first attempt was, seconds since 1970
    replaced: tuple[Outcome, ...] = ()  # what was recorded before, oldest first: it was corrected

    @property
    def complete(self) -> bool:
        """Whether this trial may be learned from."""
        return self.state is State.COMPLETE and self.result is not None

    @property
    def ended(self) -> bool:
        """Whether it will not be run any more: complete, pruned or failed."""
        return self.state in (State.COMPLETE, State.PRUNED, State.FAILED)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The final metrics; empty unless complete."""
        return self.result.metrics if self.result is not None and self.complete else {}

    @property
    def expected(self) -> Mapping[str, tuple[float, float]]:
        """What a pruned trial would have measured, and its deviation; empty for any other."""
        if self.state is not State.PRUNED or self.result is None:
            return {}
        return self.result.expected
