"""Which sequences come when: a keyed permutation, and counts per step that never drift.

Both are pure functions that hold nothing of the corpus' size. Needs numpy alone.
"""

from __future__ import annotations

import hashlib

import numpy as np

ROUNDS = 6  # 4 rounds of a Feistel network look random; 6 still do on a handful of elements
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ROUNDING = 1e-9  # `steps * batch * weight` this near to an integer is that integer


def permute(index: np.ndarray, size: int, *key: object) -> np.ndarray:
    """Images of `index` under the permutation of `range(size)` that `key` names.

    A balanced Feistel network over the next even number of bits, walking a cycle until the image
    lies below `size` (Black and Rogaway 2002): a bijection with no table, under 4 walks on average.

    Args:
        index: (n,) integers in [0, size).
        size: how many elements are permuted, at least 1.
        key: anything with a stable `repr`; equal keys give equal permutations.

    Returns:
        (n,) int64 in [0, size).
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    seed = hashlib.blake2b(repr(key).encode(), digest_size=8 * ROUNDS).digest()
    keys = np.frombuffer(seed, dtype="<u8")
    image = np.asarray(index).astype(np.uint64)
    outside = np.ones(image.shape, dtype=bool)
    while outside.any():
        left, right = image[outside] >> half, image[outside] & mask
        for key_of_round in keys:
            left, right = right, left ^ (_mix(right ^ key_of_round) & mask)
        image[outside] = (left << half) | right
        outside = image >= size
    return image.astype(np.int64)


def shuffled(size: int, *key: object) -> np.ndarray:
    """A permutation of `range(size)` that `key` names, (size,) int64, as a whole: one sort."""
    seed = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    start = np.frombuffer(seed, dtype="<u8")
    # splitmix64 in full: a counter in steps of the golden ratio, then the finalizer
    return np.argsort(_mix(start + np.arange(size, dtype=np.uint64) * GOLDEN), kind="stable")


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer: every bit of `x` moves every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


class CountSchedule:
    """How many sequences of each domain a step takes: weights made exact.

    After any number of steps s, the sequences taken of domain j number less than 1 away from
    s · batch · weight_j, and those of a step sum to the batch. Rounding cumulative weights
    (systematic sampling) keeps the bound but may ask for −1 sequences; here each step first takes
    what is due, then what will be due earliest, which always works (proportionate fairness on one
    processor, Baruah et al. 1996; the chairman assignment problem, Tijdeman 1980).

    Computed in order and kept, (steps + 1, m) int64: a few microseconds a step.

    Args:
        weights: (m,) at least 0, summing to about 1.
        batch: sequences in a step.
    """

    def __init__(self, weights: np.ndarray, batch: int) -> None:
        self.batch = batch
        self._weights = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        self._taken = np.zeros((1, len(self._weights)), dtype=np.int64)
        self._known = 0  # steps computed

    def before(self, step: int) -> np.ndarray:
        """Sequences of each domain taken by all steps before `step`, (m,) int64."""
        if step > self._known:
            self._extend(step)
        taken: np.ndarray = self._taken[step]
        return taken

    def at(self, step: int) -> np.ndarray:
        """Sequences of each domain in `step`, (m,) int64, summing to the batch."""
        after = self.before(step + 1)
        counts: np.ndarray = after - self._taken[step]
        return counts

    def _extend(self, step: int) -> None:
        if step >= len(self._taken):  # double, so that asking step by step stays linear
            grown = np.zeros((max(step + 1, 2 * len(self._taken)), len(self._weights)), np.int64)
            grown[: self._known + 1] = self._taken[: self._known + 1]
            self._taken = grown
        with np.errstate(divide="ignore", over="ignore"):
            interval = 1.0 / self._weights  # sequences of the whole stream per one of the domain
        for s in range(self._known, step):
            due = (s + 1) * self.batch * self._weights
            taken = np.maximum(self._taken[s], np.floor(due + ROUNDING).astype(np.int64))
            spare = (s + 1) * self.batch - int(taken.sum())
            if spare > 0:
                may = np.ceil(due - ROUNDING) > taken
                deadline = np.full_like(due, np.inf)
                deadline[may] = (taken[may] + 1) * interval[may]
                taken[np.argsort(deadline, kind="stable")[:spare]] += 1
            self._taken[s + 1] = taken
        self._known = step
