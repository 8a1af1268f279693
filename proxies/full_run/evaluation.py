"""Evaluation split over processes: each runs its share of a batch, and all know the whole of it.

Shapes: K = 1 model, B sequences, T positions, N = B·T tokens, R rows of a routing per sequence,
S slots of a row, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixopt.models.routers.base import Routing
from mixopt.proxies.foreign import LanguageModel
from mixopt.proxies.full_run.world import World


class SplitModel:
    """A model in the place of itself, for `mixopt.proxies.evaluation`.

    Every process calls it with the same sequences, and gets what the model gives for all of them.

    Args:
        model: sharded or whole.
        world: the processes.
    """

    cohort = 1

    def __init__(self, model: LanguageModel, world: World) -> None:
        self._model, self._world = model, world
        self.training = model.training

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._model.device

    def train(self, mode: bool = True) -> SplitModel:
        """Choose between training and evaluation."""
        self._model.train(mode)
        self.training = mode
        return self

    def eval(self) -> SplitModel:
        """Choose evaluation."""
        return self.train(False)

    @torch.no_grad()
    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """See `LanguageModel`."""
        if self._world.size == 1:
            return self._model.nats(ids_KBT, targets_KBT, mask_KBT)
        sequences = ids_KBT.shape[1]
        own = self._world.share(sequences)
        if own.start == own.stop:  # a sharded model runs in all processes or in none
            own = slice(0, 1)
        mask_own = None if mask_KBT is None else mask_KBT[:, own]
        nats_KN, routings = self._model.nats(ids_KBT[:, own], targets_KBT[:, own], mask_own)
        rows = own.stop - own.start
        nats_BT = self._all(nats_KN.view(rows, -1), sequences)
        slots = torch.tensor([r.indices_KNS.shape[-1] for r in routings], device=self.device)
        most = torch.stack(self._world.gather(slots)).amax(0).tolist()
        layers = zip(routings, most, strict=True)
        return nats_BT.view(1, -1), [self._routing(r, rows, sequences, s) for r, s in layers]

    def _routing(self, routing: Routing, rows: int, sequences: int, slots: int) -> Routing:
        """One layer's routing of all sequences."""
        empty = slots - routing.indices_KNS.shape[-1]
        indices_KNS = torch.nn.functional.pad(routing.indices_KNS, (0, empty), value=-1)
        gates_KNS = torch.nn.functional.pad(routing.gates_KNS, (0, empty))
        indices_BX = self._all(indices_KNS.reshape(rows, -1).int(), sequences)
        gates_BX = self._all(gates_KNS.reshape(rows, -1), sequences)
        chosen_A = indices_BX[indices_BX >= 0].long()
        counts_E = torch.bincount(chosen_A, minlength=routing.counts_KE.shape[1]).float()
        return Routing(
            indices_BX.long().view(1, -1, slots), gates_BX.view(1, -1, slots), counts_E[None]
        )

    def _all(self, own_BX: Tensor, sequences: int) -> Tensor:
        """The rows of all sequences, in order."""
        size = self._world.size
        most = -(-sequences // size)
        padded_BX = own_BX.new_zeros(most, own_BX.shape[1])
        padded_BX[: len(own_BX)] = own_BX
        parts = []
        for rank, part_BX in enumerate(self._world.gather(padded_BX)):
            own = World(rank, size).share(sequences)
            parts.append(part_BX[: own.stop - own.start])
        return torch.cat(parts)
