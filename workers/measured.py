"""What is measured once, on a worker, so that all trainings of a study use the same.

Measured by one task while nothing else of ours runs: trials that measured for themselves, side by
side, could come to different answers, and differ by their rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call

Warn = Callable[[str], None]


def resolved(model: ModelConfig, recipe: Recipe, resources: Resources, warn: Warn) -> Recipe:
    """`recipe` with fp32 or bf16, whichever is faster for `model` on a worker of this cluster.

    Raises:
        TrainingError: it cannot be measured; see `mixopt.workers.once.call`, also for `warn`.
    """
    return call(
        *(_precision, model, recipe, resources.threads, resources.device),
        resources=resources,
        label="measuring precisions",
        warn=warn,
    )


def cohort(model: ModelConfig, recipe: Recipe, resources: Resources, warn: Warn) -> int:
    """How many proxies of `model` train fastest as one on a worker of this cluster.

    Raises:
        TrainingError: it cannot be measured; see `mixopt.workers.once.call`, also for `warn`.
    """
    return call(
        *(_cohort, model, recipe, resources),
        resources=resources,
        label="measuring cohorts",
        warn=warn,
    )


def _precision(model: ModelConfig, recipe: Recipe, threads: int, device: str) -> Recipe:
    import torch

    from mixopt.proxies.precision import choose_precision

    torch.set_num_threads(threads)
    faster = choose_precision(model, recipe, 1, torch.device(device))
    return dataclasses.replace(recipe, precision="bf16" if faster == "bf16" else "fp32")


def _cohort(model: ModelConfig, recipe: Recipe, resources: Resources) -> int:
    import torch

    from mixopt.proxies.cohorts import choose_cohort

    torch.set_num_threads(resources.threads)
    return choose_cohort(model, recipe, torch.device(resources.device), resources.gpus)
