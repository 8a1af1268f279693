"""A few gloo processes on this machine, which run a function of a test module together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mixopt.proxies.full_run.world import World


def together(processes: int, function: Callable[..., None], *args: Any) -> None:
    """Call `function(world, *args)` in so many new processes; raises what one of them raises."""
    with tempfile.TemporaryDirectory() as folder:
        store = (Path(folder) / "store").as_uri()
        mp.spawn(_one, (processes, store, function, args), nprocs=processes)


def _one(
    rank: int, processes: int, store: str, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    try:
        function(World.current(), *args)
    finally:
        dist.destroy_process_group()
