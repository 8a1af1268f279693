"""The processes that train one model together, and what each of them does of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from mixopt.core.errors import TrainingError


@dataclass(frozen=True)
class World:
    """Which process this is, of how many; one alone needs no process group.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device | str = "cpu") -> World:
        """That of torch's default process group; this process alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=torch.device(device))
        return cls(dist.get_rank(), dist.get_world_size(), torch.device(device))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    def share(self, items: int) -> slice:
        """This process' part of `items` in order; parts differ by one item at most."""
        return slice(items * self.rank // self.size, items * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, written into `tensor`."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process' tensor of this shape, in order."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous())
        return found

    def of_first(self, number: int) -> int:
        """The first process' number, in every process."""
        if self.size == 1:
            return number
        told = torch.tensor(number, device=self.device)
        dist.broadcast(told, src=0)
        return int(told)

    def all_agree(self, agrees: bool) -> bool:
        """Whether every process agrees; also waits for all of them."""
        votes = self.sum(torch.tensor(int(agrees), device=self.device))
        return int(votes) == self.size


def split_rows(batch: int, micro_batches: int, world: World) -> list[range]:
    """The rows of a batch that this process trains on, of each micro-batch.

    The batch is cut into micro-batches first, so that these are the same however many processes
    there are.

    Args:
        batch: sequences in all.
        micro_batches: parts of equally many sequences.
        world: the processes.

    Raises:
        TrainingError: a micro-batch has fewer sequences than there are processes.
    """
    size = batch // micro_batches
    if size < world.size:
        raise TrainingError(
            f"{world.size} processes cannot share {size} sequences "
            f"({batch} of a batch in {micro_batches} parts): each needs one at least",
            where="promote.resources",
            hint=f"Run at most {size} processes, lower recipe.micro_batches or raise "
            "recipe.batch_sequences",
        )
    own = world.share(size)
    starts = range(0, batch, size)
    return [range(start + own.start, start + own.stop) for start in starts]
