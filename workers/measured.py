"""What is measured once, on a worker, so that all trainings of a study use the same.

Measured by one task while nothing else of ours runs: trials that measured for themselves, side by
side, could come to different answers, and differ by their rounding.
"""

from __future__ import annotations

import dataclasses

import ray

from mixopt.models.config import ModelConfig
from mixopt.recipe import Recipe
from workers.cluster import Resources


def settled(model: ModelConfig, recipe: Recipe, resources: Resources) -> Recipe:
    """`recipe` with fp32 or bf16, whichever is faster for `model` on a worker of this cluster."""
    task = ray.remote(_precision).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=resources.attempts
    )
    chosen: Recipe = ray.get(task.remote(model, recipe, resources.threads, resources.device))
    return chosen


def cohort(model: ModelConfig, recipe: Recipe, resources: Resources) -> int:
    """How many proxies of `model` train fastest as one on a worker of this cluster."""
    task = ray.remote(_cohort).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=resources.attempts
    )
    chosen: int = ray.get(task.remote(model, recipe, resources))
    return chosen


def _precision(model: ModelConfig, recipe: Recipe, threads: int, device: str) -> Recipe:
    import torch

    from proxies.precision import choose_precision

    torch.set_num_threads(threads)
    faster = choose_precision(model, recipe, 1, torch.device(device))
    return dataclasses.replace(recipe, precision="bf16" if faster == "bf16" else "fp32")


def _cohort(model: ModelConfig, recipe: Recipe, resources: Resources) -> int:
    import torch

    from proxies.cohorts import choose_cohort

    torch.set_num_threads(resources.threads)
    return choose_cohort(model, recipe, torch.device(resources.device), resources.gpus)
