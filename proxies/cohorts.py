"""How many proxies train fastest as one; measured once per device and shape.

Shapes: K proxies, B sequences of a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from mixopt.core.errors import is_out_of_memory
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.team import at_work
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import WARM_UP, make_step
from mixopt.proxies.measurements import remembered
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.precision import DTYPES, choose_precision

NEEDED_GAIN = 1.05  # twice the proxies must train this much more tokens a second to be worth it
MOST = 256
ROUNDS, SECONDS = 3, 0.5  # steps that are measured at least, and for how long
HEADROOM = 0.8  # share of the GPU memory of a training that its steps may take; evaluation, peaks


def choose_cohort(
    config: ModelConfig, recipe: Recipe, device: torch.device, gpus: float = 1
) -> int:
    """The cohort K = 1, 2, 4, … after which twice as many proxies gain less than 5 % in tokens/s.

    A few steps of each are measured, until there is no gain or no memory, and the answer is
    remembered in the user's cache folder (`$XDG_CACHE_HOME/mixopt/cohorts.json`, else under
    `~/.cache`).

    Args:
        config: the proxies' shape, with its vocabulary.
        recipe: how they are trained.
        device: where.
        gpus: share of the GPU that a training has; what is beyond it counts as no memory.
    """
    batch = (recipe.sequence_length, recipe.batch_sequences, recipe.micro_batches)
    shape = (config, *batch, recipe.precision, min(gpus, 1))

    def fastest() -> int:
        with _memory_of(device, gpus), at_work(device):
            return _measure(config, recipe, device)

    return remembered("cohorts", device, shape, fastest, lambda k: isinstance(k, int) and k > 0)


def tokens_per_second(
    config: ModelConfig, recipe: Recipe, cohort: int, device: torch.device
) -> float:
    """Training tokens per second of `cohort` proxies together: the best of a few steps.

    Raises:
        RuntimeError: so many do not fit, of a kind that `is_out_of_memory` knows.
    """
    precision = choose_precision(config, recipe, 1, device)
    model = Transformer(config, (0,) * cohort, DTYPES[precision]).to(device).train()
    optimizer = CohortOptimizer(model, recipe, (recipe.learning_rate,) * cohort)
    generator = torch.Generator().manual_seed(0)
    shape = (cohort, recipe.batch_sequences, recipe.sequence_length + 1)
    ids_KBT = torch.randint(config.vocab_size, shape, generator=generator).to(device)
    step = make_step(model, optimizer, recipe.micro_batches)
    warm = WARM_UP + 1 if device.type == "cuda" else 1
    spent: list[float] = []
    while len(spent) < warm + ROUNDS or sum(spent) < SECONDS:
        start = time.perf_counter()
        step(ids_KBT).sum().item()  # waits for the device
        spent.append(time.perf_counter() - start)
    return cohort * recipe.tokens_per_step / min(spent[warm:])


def _measure(config: ModelConfig, recipe: Recipe, device: torch.device) -> int:
    chosen, speed = 1, tokens_per_second(config, recipe, 1, device)
    while 2 * chosen <= MOST:
        try:
            faster = tokens_per_second(config, recipe, 2 * chosen, device)
        except Exception as error:
            if is_out_of_memory(error):
                break
            raise
        if faster < NEEDED_GAIN * speed:
            break
        chosen, speed = 2 * chosen, faster
    return chosen


@contextlib.contextmanager
def _memory_of(device: torch.device, gpus: float) -> Iterator[None]:
    """Only the memory that a training with this share of a GPU may count on."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_per_process_memory_fraction(HEADROOM * min(gpus, 1.0), device)
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0, device)
