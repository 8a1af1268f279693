"""Guards around torch numerics: one thread, float64, quiet fits, no trace in global state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch code on one thread from `seed`, and leave threads and generator as they were.

    Sums over several threads come in no fixed order, and Gaussian processes of a few hundred
    trials gain nothing from them. BoTorch's advice about scaling and refits is silenced in here
    alone: inputs are weights in [0, 1], outcomes are standardised by the model.
    """
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)
