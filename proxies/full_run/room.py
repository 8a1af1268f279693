"""Whether a process of a full run has the memory that it needs, before it builds anything."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mixopt.core.errors import TrainingError
from mixopt.core.formatting import bytes_text
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.memory import full_run_memory
from mixopt.proxies.full_run.world import World

CGROUP = Path("/sys/fs/cgroup")


def check_room(model: ModelConfig, recipe: Recipe, world: World, *, recompute: bool) -> str:
    """A note where a step may need more memory than there is; empty where it fits.

    Raises:
        TrainingError: not even the parameters and the optimizer's state fit.
    """
    memory = full_run_memory(model, recipe, world.size, recompute=recompute)
    room = available(world.device)
    if memory.needed > room:
        first = "while it is built" if memory.built > memory.states else "with its optimizer"
        raise TrainingError(
            f"the model takes {bytes_text(memory.needed)} of each process' memory {first}, and "
            f"{bytes_text(room)} are free there",
            where="promote.resources",
            hint="Take machines with more memory, fewer processes on each, more processes in all, "
            "or a smaller promote.model",
        )
    if memory.training <= room:
        return ""
    return (
        f"a step may need {bytes_text(memory.training)} in each process, and "
        f"{bytes_text(room)} are free; raise recipe.micro_batches or promote.resources.processes"
        + ("" if recompute else ", or set promote.resources.recompute")
    )


def available(device: torch.device) -> float:
    """Bytes that this process may take: of a GPU, or its share of what its machine has free."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by Ray Train, as by torchrun
    return min(_machine(), _container()) / here


def _machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * int(kilobytes[0]) if kilobytes else float("inf")


def _container(folder: Path = CGROUP) -> float:
    """What a container's limit leaves; without one, infinity."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return float("inf")
    if limit == "max":
        return float("inf")
    cached = [int(line.split()[1]) for line in lines if line.startswith("inactive_file ")]
    return max(0.0, float(limit) - used + sum(cached))  # pages of files give way
