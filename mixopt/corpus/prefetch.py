"""Batches made ahead of the step that needs them, on a thread of their own. Needs numpy alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

AHEAD = 2  # steps: one is read while another waits; more would only hold more memory


@contextmanager
def prefetched(
    make: Callable[[int], np.ndarray], steps: range, ahead: int = AHEAD
) -> Iterator[Iterator[np.ndarray]]:
    """The batches of `steps` in order, each begun while the `ahead` before it are trained on.

    What a thread has made ahead is dropped at the end of the block, and nothing of it is kept in
    checkpoints: a batch is a function of its step, so that a resumed run makes the same ones again.

        with prefetched(batches.at, range(first, last)) as ahead:
            for batch in ahead: ...

    Args:
        make: from a step to its batch; called by one thread only, in the order of the steps.
        steps: which ones.
        ahead: how many batches may be waiting, at least 1.

    Raises:
        CorpusError: whatever `make` raises, where the batch would have come.
    """
    with ThreadPoolExecutor(1, "batches") as pool:
        waiting = deque(pool.submit(make, step) for step in steps[:ahead])

        def in_order() -> Iterator[np.ndarray]:
            for later in range(ahead, len(steps) + ahead):
                batch = waiting.popleft().result()
                if later < len(steps):
                    waiting.append(pool.submit(make, steps[later]))
                yield batch

        try:
            yield in_order()
        finally:
            pool.shutdown(cancel_futures=True)
