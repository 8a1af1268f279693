"""What a full run tells while it trains.

Shapes: L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mixopt.proxies.training import Progress


@dataclass(frozen=True)
class FullProgress(Progress):
    """Where a full run stands; numbers are of the whole batch, and means over the steps reported.

    Attributes:
        gradient_norm: before clipping, of the last step.
        learning_rate: of the last step.
        loads: share of assignments by expert, of each layer; empty for a dense model.
        router_entropy: nats of entropy of a token's gates, mean over layers.
        dead_experts: experts of all layers that no token reached.
        metrics: of an evaluation, by the names of `Evaluation.metrics`; else empty.
        router_churn: of an evaluation, see `Churn`; else None.
    """

    gradient_norm: float = 0.0
    learning_rate: float = 0.0
    loads: tuple[tuple[float, ...], ...] = ()
    router_entropy: float = 0.0
    dead_experts: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    router_churn: float | None = None


class Tally:
    """What was seen since the last report, and what that said."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._entropies: list[float] = []
        self._norm = 0.0
        self._counts_LE: Tensor | None = None
        self._told: dict[str, Any] = {}

    def add(self, loss: float, entropy: float, norm: float) -> None:
        """Of one step."""
        self._losses.append(loss)
        self._entropies.append(entropy)
        self._norm = norm

    def add_counts(self, counts_LE: Tensor) -> None:
        """Assignments of one step; stays on the device."""
        seen = self._counts_LE
        self._counts_LE = counts_LE.clone() if seen is None else seen + counts_LE

    def report(self) -> dict[str, Any]:
        """Fields of `FullProgress`, those of the last report where no step was seen since."""
        if self._losses and self._counts_LE is not None:
            counts_LE = self._counts_LE.cpu()
            shares_LE = counts_LE / counts_LE.sum(1, keepdim=True).clamp_min(1)
            self._told = {
                "gradient_norm": self._norm,
                "router_entropy": sum(self._entropies) / len(self._entropies),
                "loads": tuple(tuple(row) for row in shares_LE.tolist()),
                "dead_experts": int((counts_LE == 0).sum()),
            }
        loss = (sum(self._losses) / len(self._losses),) if self._losses else ()
        self._losses, self._entropies, self._counts_LE = [], [], None
        return {**self._told, "loss": loss}
