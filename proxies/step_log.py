"""What the steps of a training come to: losses and gradient norms, and their means on its curve.

Shapes: K proxies, S steps since they were last read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class StepMeans:
    """Means of loss and gradient norm over the steps since the last evaluation.

    One step is added after the other, in float64: however often a device is read, and wherever a
    training is interrupted, they come to the same.

    Args:
        proxies: K.

    Attributes:
        seconds: that the steps took.
    """

    def __init__(self, proxies: int = 1) -> None:
        self._steps, self.seconds = 0, 0.0
        self._sums_2K = np.zeros((2, proxies))

    def add(self, found_2K: np.ndarray) -> None:
        """Take up a step: every proxy's loss in nats per token, and its gradient norm."""
        self._steps += 1
        self._sums_2K += found_2K

    def of_point(self, tokens_per_step: int, rates_K: Sequence[float]) -> list[dict[str, float]]:
        """`CurvePoint.training` of each proxy, as far as finite; empty where no step was added.

        Args:
            tokens_per_step: of one proxy.
            rates_K: learning rates of the last step.
        """
        if not self._steps:
            return [{} for _ in rates_K]
        speed = self._steps * tokens_per_step / max(self.seconds, 1e-9)
        loss_K, norm_K = (self._sums_2K / self._steps).tolist()
        found = [
            {"loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed}
            for loss, norm, rate in zip(loss_K, norm_K, rates_K, strict=True)
        ]
        return [{n: v for n, v in values.items() if math.isfinite(v)} for values in found]

    def to_json(self) -> dict[str, Any]:
        """The means so far, as JSON-able values; `from_json` gives them back exactly."""
        return {"steps": self._steps, "seconds": self.seconds, "sums": self._sums_2K.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StepMeans:
        """The means that `to_json` described."""
        means = cls()
        means._steps, means.seconds = int(values["steps"]), float(values["seconds"])
        means._sums_2K = np.array(values["sums"], dtype=float)
        return means


class StepLog:
    """Loss and gradient norm of each step of a cohort, on the device until they are read.

    Reading waits for the device, so it is done once a second, not at every step.

    Attributes:
        stretch: seconds that the steps took which were read last.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[Tensor, Tensor]] = []  # (K,) each
        self.stretch = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        """Training goes on now: the time until here went into something else."""
        self._since = time.perf_counter()

    def add(self, nats_K: Tensor, norm_K: Tensor) -> None:
        """Take up a step: every proxy's loss and gradient norm, on the device."""
        self._unread.append((nats_K, norm_K))

    def read(self, means: StepMeans) -> np.ndarray | None:
        """The losses since the last time, (S, K), nats per token; `means` takes them up.

        None where there was no step.
        """
        if not self._unread:
            return None
        found_S2K = torch.stack([torch.stack(pair) for pair in self._unread]).cpu().double().numpy()
        self._unread.clear()
        now = time.perf_counter()  # the device has ended them
        self.stretch, self._since = now - self._since, now
        for found_2K in found_S2K:
            means.add(found_2K)
        means.seconds += self.stretch
        losses_SK: np.ndarray = found_S2K[:, 0]
        return losses_SK
