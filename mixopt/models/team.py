"""Threads that share one model's work: independent pieces, each by operators of a single thread.

Splitting an operator over threads makes every small product wait for the slowest thread; two
cores then train a small model only 1.4 × as fast as one. Here each thread takes whole chains of
operators instead (the attention of some sequences, the products of one expert, the loss of some
rows), which also keeps their tensors in that core's cache.

    with team(2):
        model.loss(ids, targets)  # forward and backward by two threads
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch


class Team:
    """Runs numbered pieces of work; alone (`threads=1`), one after the other in this thread.

    Pieces must not depend on each other. What they compute does not depend on which thread takes
    them, so results repeat bit for bit with as many threads.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[int], None], pieces: int) -> None:
        """Call `work(i)` for every i below `pieces`; the caller must not be tracking gradients."""
        if self._pool is None or pieces < 2:
            for piece in range(pieces):
                work(piece)
            return
        taken = itertools.count()

        def take() -> None:
            while (piece := next(taken)) < pieces:
                work(piece)

        helpers = [
            self._pool.submit(torch.no_grad()(take)) for _ in range(min(self.threads, pieces) - 1)
        ]
        take()
        for helper in helpers:
            helper.result()

    def blocks(self, cohort: int, items: int) -> list[tuple[slice, slice]]:
        """(proxies, items of each): as `shards`, but proxies that are not cut stay together."""
        shards = self.shards(cohort, items)
        if len(shards) > cohort:
            return [(slice(k, k + 1), part) for k, part in shards]
        bounds = [cohort * i // self.threads for i in range(self.threads + 1)]
        return [(slice(a, b), slice(0, items)) for a, b in itertools.pairwise(bounds) if b > a]

    def shards(self, cohort: int, items: int) -> list[tuple[int, slice]]:
        """(proxy, some of its items) of pieces that keep every thread equally busy."""
        parts = min(items, self.threads // math.gcd(cohort, self.threads))
        bounds = [items * part // parts for part in range(parts + 1)]
        pairs = list(itertools.pairwise(bounds))
        return [(k, slice(*pair)) for k in range(cohort) for pair in pairs]


_ALONE = Team()
_CURRENT: ContextVar[Team] = ContextVar("team", default=_ALONE)


def current() -> Team:
    """The team of the innermost `team(...)` around the caller, else one without helpers."""
    return _CURRENT.get()


def threads() -> int:
    """CPU threads that models work on here: the team's, else those of torch's operators."""
    return max(current().threads, torch.get_num_threads())


@contextmanager
def team(size: int | None = None) -> Iterator[Team]:
    """Within it, models work on `size` CPU threads (None: `threads()`), single operators on one."""
    size = size or threads()
    before = torch.get_num_threads()
    group = Team(size)
    torch.set_num_threads(1)
    token = _CURRENT.set(group)
    try:
        if size < 2:
            yield group
            return
        with ThreadPoolExecutor(size - 1, "team", torch.set_num_threads, (1,)) as pool:
            group._pool = pool
            yield group
    finally:
        _CURRENT.reset(token)
        torch.set_num_threads(before)


def at_work(device: torch.device) -> AbstractContextManager[object]:
    """A team of `threads()` where the CPU computes; nothing where a GPU does."""
    return team() if device.type == "cpu" else nullcontext()
