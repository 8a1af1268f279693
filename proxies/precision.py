"""Which dtype the matrix products run in; `auto` measures once per device and shape."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.team import at_work
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import WARM_UP, make_step
from mixopt.proxies.measurements import remembered
from mixopt.proxies.optimizer import CohortOptimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NEEDED_GAIN = 1.1  # bf16 must be this much faster to be worth its rounding
ROUNDS = 3


def choose_precision(config: ModelConfig, recipe: Recipe, cohort: int, device: torch.device) -> str:
    """`fp32` or `bf16`: the recipe's own choice, else the faster of the two on this device.

    The measurement takes about ten steps, and is remembered in the user's cache folder
    (`$XDG_CACHE_HOME/mixopt/precision.json`, else under `~/.cache`).
    """
    if recipe.precision != "auto":
        return recipe.precision
    shape = (config, recipe.sequence_length, recipe.batch_sequences, recipe.micro_batches, cohort)

    def faster() -> str:
        with at_work(device):
            seconds = _measure(config, recipe, cohort, device)
        return "bf16" if seconds["bf16"] * NEEDED_GAIN < seconds["fp32"] else "fp32"

    return remembered("precision", device, shape, faster, DTYPES.__contains__)


def _measure(
    config: ModelConfig, recipe: Recipe, cohort: int, device: torch.device
) -> dict[str, float]:
    """Seconds of a step in each dtype, the best of a few; no more memory than a training takes."""
    generator = torch.Generator().manual_seed(0)
    shape = (cohort, recipe.batch_sequences, recipe.sequence_length + 1)
    ids_KBT = torch.randint(config.vocab_size, shape, generator=generator).to(device)
    return {name: _seconds(config, recipe, dtype, ids_KBT) for name, dtype in DTYPES.items()}


def _seconds(config: ModelConfig, recipe: Recipe, dtype: torch.dtype, ids_KBT: Tensor) -> float:
    cohort = len(ids_KBT)
    model = Transformer(config, (0,) * cohort, dtype).to(ids_KBT.device).train()
    optimizer = CohortOptimizer(model, recipe, (recipe.learning_rate,) * cohort)
    step = make_step(model, optimizer, recipe.micro_batches)
    warm = WARM_UP + 1 if ids_KBT.is_cuda else 1
    spent = []
    for _ in range(warm + ROUNDS):
        start = time.perf_counter()
        step(ids_KBT).sum().item()  # waits for the device
        spent.append(time.perf_counter() - start)
    return min(spent[warm:])
