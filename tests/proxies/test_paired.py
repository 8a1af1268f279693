"""Two models on the same windows: their difference is that of their scores, with its error."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.evaluation import evaluate
from mixopt.proxies.paired import difference, ratio

SHAPE = ModelConfig(width=16, layers=1, heads=2, expert_width=16, experts=2, experts_per_token=1)
LENGTH = 16


def model(corpus: Corpus, seed: int, **changes: int) -> Transformer:
    shape = dataclasses.replace(SHAPE, vocab_size=corpus.vocab_size, **changes)
    return Transformer(shape, (seed,))


def test_the_difference_is_that_of_the_evaluations(text_corpus: Corpus) -> None:
    first, second = model(text_corpus, 0), model(text_corpus, 1, width=32, layers=2)
    weights, tokens = {"law": 0.75, "notes": -0.25}, {"law": 512, "notes": 256}
    found = difference(first, second, text_corpus, weights, tokens, LENGTH)
    scores = []
    for each in (first, second):
        (score,) = evaluate(each, text_corpus, tuple(weights), tokens, LENGTH)
        scores.append(sum(w * score.metrics[f"bpb/{d}"] for d, w in weights.items()))
    assert (found.first, found.second) == pytest.approx(scores, rel=1e-5)
    assert found.mean == pytest.approx(scores[0] - scores[1], abs=1e-5)
    assert found.windows == 512 // LENGTH + 256 // LENGTH
    assert found.standard_error > 0


def test_a_model_does_not_differ_from_itself(text_corpus: Corpus) -> None:
    one = model(text_corpus, 0)
    found = difference(one, one, text_corpus, {"law": 1.0}, {"law": 512}, LENGTH)
    assert (found.mean, found.standard_error) == (0, 0)


def test_one_window_has_no_error(text_corpus: Corpus) -> None:
    first, second = model(text_corpus, 0), model(text_corpus, 1)
    found = difference(first, second, text_corpus, {"law": 1.0}, {"law": LENGTH}, LENGTH)
    assert found.windows == 1
    assert math.isnan(found.standard_error)


def test_the_error_of_a_ratio_is_how_much_it_scatters_over_samples() -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(4000):
        below = rng.uniform(20, 60, 64)
        above = 0.1 * below + rng.normal(0, 3, 64)
        value, error = ratio(above, below)
        values.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)
    assert np.mean(values) == pytest.approx(0.1, rel=0.02)


def test_pairs_cancel_what_windows_have_in_common(text_corpus: Corpus) -> None:
    first = model(text_corpus, 0)
    second = model(text_corpus, 0)
    with torch.no_grad():
        second.embedding.add_(1e-3 * torch.randn_like(second.embedding))
    tokens = {"law": 2048}
    paired = difference(first, second, text_corpus, {"law": 1.0}, tokens, LENGTH)
    other = difference(first, model(text_corpus, 5), text_corpus, {"law": 1.0}, tokens, LENGTH)
    assert paired.standard_error < other.standard_error / 5
