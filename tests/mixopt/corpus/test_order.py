"""The keyed permutation is one, and counts stay within 1 of the weights at every step."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt.corpus.documents import SeenDocuments
from mixopt.corpus.order import (
    STRETCH,
    CountSchedule,
    permute,
    permute_each,
    round_keys,
    run_together,
    shuffles,
)


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers())
def test_every_element_has_one_image(size, key):
    image = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(image), np.arange(size))


def test_a_permutation_is_named_by_its_key():
    index = np.arange(1000)
    assert np.array_equal(permute(index, 1000, 0, "law"), permute(index, 1000, 0, "law"))
    same = (permute(index, 1000, 0, "law") == permute(index, 1000, 1, "law")).sum()
    assert same < 10  # about 1 is expected of two random permutations


def test_shuffles_are_permutations_named_by_their_keys():
    three, other, again = shuffles(1000, [(3, "step", 7), (3, "step", 8), (3, "step", 7)])
    assert np.array_equal(np.sort(three), np.arange(1000))
    assert np.array_equal(three, again)
    assert (three == other).sum() < 10


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 3)), min_size=1, max_size=40))
def test_sets_permuted_together_are_permuted_as_alone(sets):
    size = np.array([n for n, _ in sets])
    keys = np.stack([round_keys("k", key) for _, key in sets])
    together = permute_each(size - 1, size, keys)
    alone = [int(permute(np.array([n - 1]), n, "k", key)[0]) for n, key in sets]
    assert together.tolist() == alone


def test_studies_begun_before_go_on_in_the_same_order():
    assert permute(np.arange(5), 1000, 0, "law", 0).tolist() == [892, 604, 218, 303, 736]
    assert shuffles(6, [(0, "step", 70)])[0].tolist() == [2, 0, 4, 5, 1, 3]


def test_images_do_not_depend_on_what_is_asked_with_them():
    whole = permute(np.arange(5000), 5000, 7)
    assert np.array_equal(permute(np.array([4999, 3]), 5000, 7), whole[[4999, 3]])


def test_a_permutation_looks_random():
    # chi² over 20 × 20 cells of (index, image); 361 degrees of freedom, sd √(2·361) = 27
    size = 40_000
    image = permute(np.arange(size), size, "x")
    cells, _, _ = np.histogram2d(np.arange(size), image, bins=20)
    assert ((cells - 100) ** 2 / 100).sum() < 361 + 5 * 27
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.03


weights = st.lists(st.floats(0, 1), min_size=1, max_size=25).filter(lambda w: sum(w) > 1e-3)


@settings(deadline=None)
@given(weights=weights, batch=st.integers(1, 64))
def test_counts_never_drift_by_a_whole_sequence_and_fill_every_batch(weights, batch):
    weights = np.array(weights) / sum(weights)
    schedule = CountSchedule(weights, batch)
    for step in range(60):
        counts = schedule.at(step)
        assert counts.sum() == batch
        assert (counts >= 0).all()
        assert (np.abs(schedule.before(step + 1) - (step + 1) * batch * weights) < 1 + 1e-6).all()
    assert (schedule.before(60)[weights == 0] == 0).all()


def test_counts_hold_over_a_long_run_of_many_small_domains():
    weights = np.array([0.5, *[0.5 / 39] * 39])
    schedule = CountSchedule(weights, 7)
    for step in (1, 13, 500, 5000):
        assert (np.abs(schedule.before(step) - step * 7 * weights) < 1).all()
    assert np.array_equal(schedule.before(5000), CountSchedule(weights, 7).before(5000))


def test_equal_shares_come_out_even():
    schedule = CountSchedule(np.full(4, 0.25), 8)
    assert all(schedule.at(step).tolist() == [2, 2, 2, 2] for step in range(100))


def test_counts_do_not_depend_on_the_order_of_asking():
    weights = np.random.default_rng(0).dirichlet(np.ones(6))
    forward = CountSchedule(weights, 5)
    expected = [forward.at(step).tolist() for step in range(50)]
    resumed = CountSchedule(weights, 5)
    assert resumed.at(41).tolist() == expected[41]
    assert resumed.at(3).tolist() == expected[3]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=40), max_size=12))
def test_seen_documents_agree_with_a_set(batches):
    seen, reference = SeenDocuments(), set()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(value not in reference)
            reference.add(value)
        assert seen.add(np.array(batch, dtype=np.uint64)).tolist() == expected
    assert seen.sorted().tolist() == sorted(reference)


def test_schedules_run_together_are_those_of_each_alone() -> None:
    random = np.random.default_rng(3)
    weights = [random.dirichlet(np.full(m, 0.4)) for m in (5, 5, 2, 5)]
    batches = (8, 8, 8, 3)  # one has fewer domains, one a smaller batch
    together = [CountSchedule(w, b) for w, b in zip(weights, batches, strict=True)]
    together[1].before(5 * STRETCH)  # one is ahead of the others
    for number in (0, 1, 4, 2):
        run_together(together, number)
        for schedule, w, b in zip(together, weights, batches, strict=True):
            alone = CountSchedule(w, b)
            assert np.array_equal(schedule.stretch(number), alone.stretch(number))
            assert (
                alone.stretch(number).sum(1) == np.arange(STRETCH + 1) * b + number * STRETCH * b
            ).all()
