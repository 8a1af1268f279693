"""Which sequences come when: a keyed permutation, and counts per step that never drift.

Both are pure functions that hold nothing of the corpus' size. Needs numpy alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

ROUNDS = 6  # 4 rounds of a Feistel network look random; 6 still do on a handful of elements
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STRETCH = 64  # steps scheduled together: one row of counts in so many is kept
ROUNDING = 1e-9  # `steps * batch * weight` this near to an integer is that integer


def permute(index: np.ndarray, size: int, *key: object) -> np.ndarray:
    """Images of `index` under the permutation of `range(size)` that `key` names.

    Args:
        index: (n,) integers in [0, size).
        size: how many elements are permuted, at least 1.
        key: anything with a stable `repr`; equal keys give equal permutations.

    Returns:
        (n,) int64 in [0, size).
    """
    index = np.asarray(index)
    keys_nR = np.broadcast_to(round_keys(*key), (len(index), ROUNDS))
    return permute_each(index, np.full(len(index), size), keys_nR)


def round_keys(*key: object) -> np.ndarray:
    """What `permute` makes of its key, (ROUNDS,) uint64."""
    seed = hashlib.blake2b(repr(key).encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(seed, dtype="<u8")


def permute_each(index: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`permute` of many sets at once: element i of `range(size[i])`, keyed by `keys[i]`.

    A balanced Feistel network over the next even number of bits, walking a cycle until the image
    lies below `size` (Black and Rogaway 2002): a bijection with no table, under 4 walks on average.

    Args:
        index: (n,) integers, `index[i]` in [0, size[i]).
        size: (n,) how many elements each one's set has, 1 to 2^53.
        keys: (n, ROUNDS) uint64, from `round_keys`.

    Returns:
        (n,) int64.
    """
    image, size = index.astype(np.uint64), size.astype(np.uint64)
    _, bits = np.frexp(np.maximum(size, 2).astype(np.float64) - 1)  # bit length of size - 1
    half = np.maximum(1, (bits + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys_Rn = np.ascontiguousarray(keys.T)
    outside = np.arange(len(image))
    while len(outside):
        shift, low = half[outside], mask[outside]
        left, right = image[outside] >> shift, image[outside] & low
        for keys_of_round in keys_Rn[:, outside]:
            left, right = right, left ^ (_mix(right ^ keys_of_round) & low)
        image[outside] = (left << shift) | right
        outside = outside[image[outside] >= size[outside]]
    return image.astype(np.int64)


def shuffles(size: int, keys: Iterable[tuple[object, ...]]) -> np.ndarray:
    """The permutations of `range(size)` that `keys` name, one a row, (keys, size) int64."""
    seeds = b"".join(hashlib.blake2b(repr(k).encode(), digest_size=8).digest() for k in keys)
    start = np.frombuffer(seeds, dtype="<u8")[:, None]
    # splitmix64 in full: a counter in steps of the golden ratio, then the finalizer
    counter = np.arange(size, dtype=np.uint64) * GOLDEN
    return np.argsort(_mix(start + counter), axis=1, kind="stable")


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

    Computed in order, some 10 microseconds a step; the counts before every 64th step are kept, so
    that a long run of many domains needs little memory and any step is near one that is known.

    Args:
        weights: (m,) at least 0, summing to about 1.
        batch: sequences in a step.
    """

    def __init__(self, weights: np.ndarray, batch: int) -> None:
        self.batch = batch
        self._weights = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        self._first = [np.zeros(len(self._weights), dtype=np.int64)]  # before each stretch
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def stretch(self, number: int) -> np.ndarray:
        """Sequences of each domain taken before each step of a stretch, and after its last one.

        Returns:
            (STRETCH + 1, m) int64; row i is `before(number * STRETCH + i)`.
        """
        run_together([self], number)
        return self._last[1]

    def before(self, step: int) -> np.ndarray:
        """Sequences of each domain taken by all steps before `step`, (m,) int64."""
        number, row = divmod(step, STRETCH)
        taken: np.ndarray = self.stretch(number)[row]
        return taken

    def at(self, step: int) -> np.ndarray:
        """Sequences of each domain in `step`, (m,) int64, summing to the batch."""
        number, row = divmod(step, STRETCH)
        taken = self.stretch(number)
        counts: np.ndarray = taken[row + 1] - taken[row]
        return counts


def run_together(schedules: Sequence[CountSchedule], number: int) -> None:
    """Let all schedules compute a stretch, those of as many domains in one go.

    32 proxies of 6 domains take a twentieth of the time that they take one by one.
    """
    todo = [s for s in schedules if s._last[0] != number]
    for known in range(min((len(s._first) for s in todo), default=1) - 1, number):
        short = [s for s in todo if len(s._first) == known + 1]
        _run([s for s in short if s._last[0] != known], known)
        for schedule in short:
            schedule._first.append(schedule._last[1][-1])
    _run(todo, number)


def _run(schedules: Sequence[CountSchedule], number: int) -> None:
    """Compute a stretch whose first row all of them know."""
    alike: dict[tuple[int, int], list[CountSchedule]] = {}
    for schedule in schedules:
        alike.setdefault((len(schedule._weights), schedule.batch), []).append(schedule)
    for (_, batch), group in alike.items():
        firsts_Km = np.stack([schedule._first[number] for schedule in group])
        taken_KSm = _taken(
            np.stack([schedule._weights for schedule in group]), firsts_Km, batch, number
        )
        for schedule, taken_Sm in zip(group, taken_KSm, strict=True):
            schedule._last = number, taken_Sm


def _taken(weights_Km: np.ndarray, firsts_Km: np.ndarray, batch: int, number: int) -> np.ndarray:
    """What K schedules take before each step of a stretch, and after the last, (K, S + 1, m)."""
    with np.errstate(divide="ignore", over="ignore"):
        interval_Km = 1.0 / weights_Km  # sequences of the whole stream per one of it
    drawn_S = (np.arange(STRETCH) + number * STRETCH + 1) * batch
    due_SKm = drawn_S[:, None, None] * weights_Km
    least_SKm = np.floor(due_SKm + ROUNDING).astype(np.int64)
    most_SKm = np.ceil(due_SKm - ROUNDING)
    taken_SKm = np.empty((STRETCH + 1, *weights_Km.shape), dtype=np.int64)
    taken_SKm[0] = firsts_Km
    places_m = np.arange(weights_Km.shape[1])
    for row, drawn in enumerate(drawn_S.tolist()):
        taken_Km = np.maximum(taken_SKm[row], least_SKm[row], out=taken_SKm[row + 1])
        spare_K1 = drawn - taken_Km.sum(1, keepdims=True)
        if not spare_K1.any():
            continue
        may_Km = most_SKm[row] > taken_Km
        deadline_Km = np.where(may_Km, (taken_Km + 1) * interval_Km, np.inf)
        earliest_Km = np.argsort(deadline_Km, axis=1, kind="stable")
        more_Km = np.zeros_like(taken_Km)
        np.put_along_axis(more_Km, earliest_Km, places_m < spare_K1, 1)
        taken_Km += more_Km
    return np.ascontiguousarray(taken_SKm.swapaxes(0, 1))
