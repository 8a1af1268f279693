"""One optimizer step of a full run: every process its share of each micro-batch.

Shapes: B sequences of this process, T tokens predicted per sequence, L MoE layers, E experts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from mixopt.models.routers.base import gate_entropies
from mixopt.proxies.full_run.contract import FullModel
from mixopt.proxies.full_run.optimizer import FullOptimizer
from mixopt.proxies.full_run.world import World
from mixopt.proxies.step import repeatable


class FullStep:
    """Moves the model once per call, by the gradient of the whole batch.

    Args:
        model: sharded already.
        optimizer: of its weights.
        sizes: sequences of this process in each micro-batch.
        micro_batch: sequences of all processes in each.
        world: the processes.
    """

    def __init__(
        self,
        model: FullModel,
        optimizer: FullOptimizer,
        sizes: Sequence[int],
        micro_batch: int,
        world: World,
    ) -> None:
        self.model, self.optimizer, self.world = model, optimizer, world
        self._sizes, self._micro_batch = list(sizes), micro_batch

    def __call__(
        self,
        ids_BT: Tensor,
        progress: float,
        rate_share: float,
        note: float,
        frozen: Collection[str] = (),
    ) -> Tensor:
        """Of the whole batch: (nats per token, mean gate entropy, gradient norm, Σ note), (4,).

        It stays on the device, for the CPU to read when it is there. A gradient that is not finite
        shows in the nats too.

        Args:
            ids_BT: (B, T + 1) tokens of this process, micro-batch after micro-batch.
            progress: share of the training's steps that are done.
            rate_share: learning rate as a share of its peak.
            note: what this process tells the others.
            frozen: names of weights that do not move.
        """
        sums = torch.zeros(3, device=ids_BT.device)
        sums[2] = note
        with repeatable(ids_BT.device):
            self.model.begin_step(progress)
            self.optimizer.zero_gradients()
            for part_BT in ids_BT.split(self._sizes):
                self._run(part_BT, sums)
            norm = self.optimizer.step(rate_share, frozen)
            self.model.end_step()
        nats, entropy, notes = self.world.sum(sums).unbind()
        return torch.stack([nats + 0.0 * norm, entropy, norm, notes])

    def _run(self, ids_BT: Tensor, sums: Tensor) -> None:
        """Add a micro-batch's gradients, and what is reported of it to `sums`."""
        nats, auxiliary, routings = self.model.loss(ids_BT[:, :-1], ids_BT[:, 1:])
        # sequences are equally long: a process' tokens count as its sequences do
        share = len(ids_BT) / self._micro_batch / len(self._sizes)
        torch.autograd.backward((nats + auxiliary).sum() * share)
        sums[0] += nats.detach().sum() * share
        if routings:
            entropies = [gate_entropies(routing).mean() for routing in routings]
            sums[1] += torch.stack(entropies).mean() * share

    def counts(self) -> Tensor:
        """Assignments of this step by layer and expert, (L, E), over all processes."""
        rows = [
            router.step_counts_KE[0, : router.config.experts] for router in self.model.routers()
        ]
        return torch.stack(rows) if rows else torch.zeros(0, 1)
