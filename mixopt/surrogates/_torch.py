"""Guards around numerics: one thread, a seed, quiet fits, no trace in global state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: milliseconds, so once


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch, numpy and scipy on one thread from `seed`; leaves threads and generator as found.

    Sums over several threads come in no fixed order: a study that was begun on two threads and
    went on with one proposed other mixtures, from a difference of 1e-11 in its first round.
    Gaussian processes of a few hundred trials gain nothing from threads. BoTorch's advice about
    scaling and refits is silenced in here alone: inputs are weights in [0, 1], outcomes are
    standardised by the model.
    """
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings(), _pools().limit(limits=1):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)
