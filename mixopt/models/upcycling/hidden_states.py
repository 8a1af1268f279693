"""What a dense seed's feed-forward layers read on sample text: what routers start from.

Shapes: S samples, L layers, D width, N tokens, n sequences of a sample, T tokens of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BATCH = 4  # sequences that pass the model together
KEPT = 512  # tokens whose states are kept as they are, over all samples


@dataclass(frozen=True)
class LayerStates:
    """The inputs x of one block's feed-forward layer, which its router reads too.

    Every sample counts the same, however many tokens it has.

    Attributes:
        means: sample → mean of x over its tokens, (D,).
        moments: sum over the samples of the mean of x xᵀ, (D, D).
        kept: x of some tokens, evenly spread over every sample, (N, D).
    """

    means: Mapping[str, Tensor]
    moments: Tensor
    kept: Tensor


HiddenStates = Sequence[LayerStates]  # one per block


def gather(
    inputs_of: Callable[[Tensor], Sequence[Tensor]], samples: Mapping[str, np.ndarray]
) -> HiddenStates:
    """The states of all blocks on `samples`.

    Args:
        inputs_of: token ids (n, T) → each block's inputs (n·T, D).
        samples: name → token ids (n, T).
    """
    each = [_sample(inputs_of, ids, max(1, KEPT // len(samples))) for ids in samples.values()]
    found: list[LayerStates] = []
    for layer in range(len(each[0])):
        parts = [sample[layer] for sample in each]
        found.append(
            LayerStates(
                means={n: part[0] for n, part in zip(samples, parts, strict=True)},
                moments=torch.stack([part[1] for part in parts]).sum(0),
                kept=torch.cat([part[2] for part in parts]),
            )
        )
    return found


@torch.no_grad()
def _sample(
    inputs_of: Callable[[Tensor], Sequence[Tensor]], ids: np.ndarray, kept: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Mean, second moments and some of the states of each block on one sample."""
    ids_nT = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    tokens, rows = ids_nT.numel(), []
    sums: list[tuple[Tensor, Tensor]] = []
    step = max(1, tokens // kept)
    for start in range(0, len(ids_nT), BATCH):
        batch_nT = ids_nT[start : start + BATCH]
        # every `step`-th token of the sample, wherever the batches end
        first = -(start * ids_nT.shape[1]) % step
        inputs = [x_ND.float() for x_ND in inputs_of(batch_nT)]
        rows.append([x_ND[first::step].clone() for x_ND in inputs])
        new = [(x_ND.sum(0), x_ND.T @ x_ND) for x_ND in inputs]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, new, strict=True)] if sums else new
    return [
        (total / tokens, moments / tokens, torch.cat([batch[layer] for batch in rows])[:kept])
        for layer, (total, moments) in enumerate(sums)
    ]
