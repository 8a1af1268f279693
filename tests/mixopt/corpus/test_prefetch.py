"""Batches come in order, ahead of time, and what goes wrong comes where the batch would have."""

import threading

import numpy as np
import pytest

from mixopt.core.errors import CorpusError
from mixopt.corpus.prefetch import prefetched


def test_batches_come_in_the_order_of_their_steps():
    with prefetched(lambda step: np.full(2, step), range(3, 9)) as ahead:
        assert [int(batch[0]) for batch in ahead] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps_give_as_many_batches(steps):
    with prefetched(np.zeros, range(steps), ahead=3) as ahead:
        assert len(list(ahead)) == steps


def test_the_next_batches_are_made_while_one_is_used():
    made = [threading.Event() for _ in range(9)]

    def make(step):
        made[step].set()
        return np.zeros(1)

    with prefetched(make, range(9), ahead=2) as ahead:
        next(ahead)
        assert made[2].wait(10)  # nobody has asked for it
        assert not made[3].is_set()


def test_an_error_comes_where_its_batch_would_have_come():
    def make(step):
        if step == 2:
            raise CorpusError("is cut", where="law")
        return np.full(1, step)

    with prefetched(make, range(5), ahead=3) as ahead:
        assert [int(next(ahead)[0]) for _ in range(2)] == [0, 1]
        with pytest.raises(CorpusError, match="law: is cut"):
            next(ahead)


def test_a_block_that_is_left_early_leaves_no_thread():
    def leave():
        with prefetched(lambda step: np.zeros(1), range(10**6)) as ahead:
            next(ahead)
            raise KeyError

    before = threading.active_count()
    with pytest.raises(KeyError):
        leave()
    assert threading.active_count() == before
