"""One optimizer step of a cohort: what every training, and every measurement of one, repeats.

Shapes: K proxies, B sequences of a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mixopt.models.transformer import Transformer
from mixopt.proxies.optimizer import CohortOptimizer


class Step:
    """Moves every proxy of a cohort once per call.

    Args:
        model: the cohort.
        optimizer: of its parameters.
        micro_batches: parts in which a batch is run.

    Attributes:
        norm_K: every proxy's gradient norm in the last step, before clipping, (K,), on the device.
    """

    def __init__(
        self, model: Transformer, optimizer: CohortOptimizer, micro_batches: int = 1
    ) -> None:
        self.model, self.optimizer, self.micro_batches = model, optimizer, micro_batches
        self.norm_K = torch.zeros(model.cohort, device=model.device)

    def __call__(self, ids_KBT: Tensor, progress: float = 0.0, rate_share: float = 1.0) -> Tensor:
        """Every proxy's loss in nats per token, (K,), on the device.

        A proxy whose gradient is not finite shows in the same number as one whose loss is not.

        Args:
            ids_KBT: (K, B, T + 1) tokens, on the device.
            progress: share of the training's steps that are done.
            rate_share: learning rates as a share of their peaks.
        """
        with repeatable(ids_KBT.device):
            self.model.begin_step(progress)
            nats_K = self.move(ids_KBT, rate_share)
            self.model.end_step()
        return nats_K

    def move(self, ids_KBT: Tensor, rate_share: float | Tensor) -> Tensor:
        """All of a step but what routers do before and after it."""
        self.optimizer.zero_gradients()
        nats_K = torch.zeros(len(ids_KBT), device=ids_KBT.device)
        for part_KBT in ids_KBT.chunk(self.micro_batches, 1):
            losses = self.model.loss(part_KBT[..., :-1], part_KBT[..., 1:])
            loss = (losses.nats_K + losses.auxiliary_K).sum() / self.micro_batches
            torch.autograd.backward(loss)
            nats_K += losses.nats_K.detach() / self.micro_batches
        self.norm_K = self.optimizer.step(rate_share)
        return nats_K + 0.0 * self.norm_K


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Within it a GPU adds in the same order every time; a CPU does so anyway."""
    if device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic", category=UserWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        memory.fill_uninitialized_memory = filled
