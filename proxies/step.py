"""One optimizer step of a cohort: what every training, and every measurement of one, repeats.

Shapes: K proxies, B sequences of a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixopt.models.transformer import Transformer
from proxies.optimizer import CohortOptimizer


def train_step(
    model: Transformer,
    optimizer: CohortOptimizer,
    ids_KBT: Tensor,
    micro_batches: int = 1,
    progress: float = 0.0,
    rate_share: float = 1.0,
) -> Tensor:
    """Move every proxy once; its loss in nats per token, (K,), on the device.

    A proxy whose gradient is not finite shows in the same number as one whose loss is not.

    Args:
        model: the cohort.
        optimizer: of its parameters.
        ids_KBT: (K, B, T + 1) tokens, on the device.
        micro_batches: parts in which the batch is run.
        progress: share of the training's steps that are done.
        rate_share: learning rates as a share of their peaks.
    """
    model.begin_step(progress)
    optimizer.zero_gradients()
    nats_K = torch.zeros(len(ids_KBT), device=ids_KBT.device)
    for part_KBT in ids_KBT.chunk(micro_batches, 1):
        losses = model.loss(part_KBT[..., :-1], part_KBT[..., 1:])
        torch.autograd.backward((losses.nats_K + losses.auxiliary_K).sum() / micro_batches)
        nats_K += losses.nats_K.detach() / micro_batches
    norm_K = optimizer.step(rate_share)
    model.end_step()
    return nats_K + 0.0 * norm_K
