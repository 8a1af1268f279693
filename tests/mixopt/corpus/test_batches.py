"""Batches hold exactly the mixture, in an order that only seed, domain and position decide."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt.core.errors import CorpusError
from mixopt.core.mixture import Mixture
from mixopt.corpus.batches import Batches, CohortBatches
from mixopt.corpus.build import build_corpus

T = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three domains of different sizes; the tokens of each are numbered words of its own."""
    folder = tmp_path_factory.mktemp("batches")
    for name, documents in (("law", 60), ("code", 25), ("prose", 9)):
        rows = [{"text": " ".join(f"{name}{d}.{w}" for w in range(30))} for d in range(documents)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "sources.yaml").write_text(
        "tokenizer: {vocabulary: 300}\nvalidation: 0\ndomains:\n"
        "  law: {files: law.jsonl}\n  code: {files: code.jsonl}\n  prose: {files: prose.jsonl}\n"
    )
    return build_corpus(folder / "sources.yaml", folder / "built")


def sequences(corpus, domain):
    """All sequences of a domain, as the naive reference cuts them: (n, T + 1)."""
    tokens = np.asarray(corpus.train(domain), dtype=np.int64)
    return np.stack([tokens[i * T : i * T + T + 1] for i in range((len(tokens) - 1) // T)])


def stream(corpus, domain, count, **settings):
    """The first `count` sequences of a domain's stream, whatever order batches show them in."""
    batches = Batches(
        corpus, Mixture.of({domain: 1}), batch_sequences=1, sequence_length=T, **settings
    )
    return np.concatenate([batches.at(step) for step in range(count)])


def as_multiset(rows):
    return sorted(map(tuple, rows.tolist()))


mixtures = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.01)


@settings(max_examples=25, deadline=None)
@given(weights=mixtures, seed=st.integers(0, 99), batch=st.integers(1, 24), step=st.integers(0, 40))
def test_a_batch_is_a_function_of_seed_and_step_alone(corpus, weights, seed, batch, step):
    mixture = Mixture.of(dict(zip(corpus.domains, weights, strict=True)))
    read_on = Batches(corpus, mixture, seed, batch, T)
    for before in range(step):
        read_on.at(before)
    resumed = Batches(corpus, mixture, seed, batch, T)
    assert np.array_equal(read_on.at(step), resumed.at(step))
    assert resumed.at(step).shape == (batch, T + 1)
    assert resumed.at(step).dtype == np.int64


@settings(max_examples=15, deadline=None)
@given(weights=mixtures, seed=st.integers(0, 99), batch=st.integers(1, 24))
def test_a_domains_sequences_come_in_the_same_order_whatever_the_mixture(
    corpus, weights, seed, batch
):
    mixture = Mixture.of(dict(zip(corpus.domains, weights, strict=True)))
    batches = Batches(corpus, mixture, seed, batch, T)
    taken = dict.fromkeys(batches.domains, 0)
    for step in range(6):
        expected = []
        for name, count in batches.domain_counts(step).items():
            if count == 0:
                continue
            alone = stream(corpus, name, taken[name] + count, seed=seed)
            expected.extend(alone[taken[name] :])
            taken[name] += count
        assert as_multiset(batches.at(step)) == as_multiset(np.stack(expected))


def test_an_epoch_reads_every_sequence_once_and_the_next_in_another_order(corpus):
    reference = sequences(corpus, "prose")
    size = len(reference)
    rows = stream(corpus, "prose", 2 * size, seed=5)
    assert as_multiset(rows[:size]) == as_multiset(reference)
    assert as_multiset(rows[size:]) == as_multiset(reference)
    assert not np.array_equal(rows[:size], rows[size:])
    assert not np.array_equal(rows[:size], reference)


def test_a_batch_may_span_epochs(corpus):
    size = len(sequences(corpus, "prose"))
    batches = Batches(corpus, Mixture.of({"prose": 1}), 5, 3 * size, T)
    assert as_multiset(batches.at(0)) == as_multiset(stream(corpus, "prose", 3 * size, seed=5))
    assert batches.epochs(2) == {"prose": 6.0}


def test_seeds_have_their_own_orders(corpus):
    assert not np.array_equal(stream(corpus, "law", 50, seed=0), stream(corpus, "law", 50, seed=1))


def test_a_token_limit_keeps_the_first_sequences_of_the_seeds_order(corpus):
    whole = stream(corpus, "law", 40, seed=3)
    limited = stream(corpus, "law", 120, seed=3, token_limits={"law": 40 * T + 3})
    assert np.array_equal(limited[:40], whole)
    for epoch in (1, 2):
        rows = limited[40 * epoch : 40 * (epoch + 1)]
        assert as_multiset(rows) == as_multiset(whole)
        assert not np.array_equal(rows, whole)


def test_labels_follow_inputs_and_no_token_is_predicted_twice_in_an_epoch(corpus):
    tokens = np.asarray(corpus.train("code"), dtype=np.int64)
    rows = stream(corpus, "code", (len(tokens) - 1) // T, seed=0)
    predicted = len(rows) * T
    assert np.array_equal(np.sort(rows[:, 1:].ravel()), np.sort(tokens[1 : predicted + 1]))


def test_a_cohort_reads_what_its_proxies_read_alone(corpus):
    cohort = [
        Batches(corpus, Mixture.of(weights), seed, 6, T, token_limits=limits)
        for weights, seed, limits in (
            ({"law": 3, "prose": 1}, 0, None),
            ({"code": 1}, 1, None),
            ({"prose": 2, "law": 1, "code": 1}, 0, {"law": 5 * T}),
        )
    ]
    together = CohortBatches(cohort)
    for step in (0, 1, 63, 64, 200, 3):
        alone = np.stack([batches.at(step) for batches in cohort])
        assert np.array_equal(together.at(step), alone)


def test_domains_are_spread_over_the_batch(corpus):
    batches = Batches(corpus, Mixture.uniform(corpus.domains), 0, 30, T)
    reference = {name: set(map(tuple, sequences(corpus, name).tolist())) for name in corpus.domains}
    labels = [
        next(name for name, rows in reference.items() if tuple(row) in rows)
        for row in batches.at(0).tolist()
    ]
    assert len(set(labels[:15])) == len(set(labels[15:])) == 3


def test_domains_of_no_weight_need_no_tokens_and_give_none(corpus):
    batches = Batches(corpus, Mixture.of({"law": 1, "elsewhere": 0}), 0, 4, T)
    assert batches.domain_counts(0) == {"law": 4}


def test_what_cannot_be_read_is_refused(corpus):
    with pytest.raises(CorpusError, match=r"no such domain 'lore'.*law, code, prose"):
        Batches(corpus, Mixture.of({"lore": 1}), 0, 4, T)
    with pytest.raises(CorpusError, match=r"prose: has .* fewer than one sequence of 100001"):
        Batches(corpus, Mixture.of({"prose": 1}), 0, 4, 100_000)
    batches = Batches(corpus, Mixture.of({"law": 1}), 0, 4, T, steps=10)
    assert batches.at(9).shape == (4, T + 1)
    for step in (-1, 10):
        with pytest.raises(CorpusError, match=f"there is no step {step}"):
            batches.at(step)
