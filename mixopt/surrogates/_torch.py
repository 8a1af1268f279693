"""Guards around numerics: one thread, a seed, quiet fits, no trace in global state."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

BRINGERS = ("scipy.linalg", "torch", "lightgbm", "sklearn")  # of pools of threads, beside numpy


def _one_thread() -> AbstractContextManager[object]:
    pools = _pools(*(name in sys.modules for name in BRINGERS))
    limited: AbstractContextManager[object] = pools.limit(limits=1)
    return limited


@cache
def _pools(*_: bool) -> ThreadpoolController:
    """Of the libraries loaded by now: looking for them takes milliseconds, so once for each set."""
    return ThreadpoolController()


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch, numpy and scipy on one thread from `seed`; leaves threads and generator as found.

    Sums over several threads come in no fixed order: a study that was begun on two threads and
    went on with one proposed other mixtures, from a difference of 1e-11 in its first round.
    Gaussian processes of a few hundred trials gain nothing from threads. BoTorch's advice about
    scaling and refits is silenced in here alone: inputs are weights in [0, 1], outcomes are
    standardised by the model.

    Torch takes seconds to import and is left alone where nothing has imported it: what imports it
    only inside such a block begins another one after that.
    """
    with _one_thread(), _torch_at(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _torch_at(seed: int) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)
