"""Two models on the same text: how far apart they are, and the error of that difference.

Shapes: W windows, T positions, N = W·T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixopt.corpus.shards import Corpus
from mixopt.proxies.evaluation import evaluate, validation_windows
from mixopt.proxies.foreign import LanguageModel


@dataclass(frozen=True)
class Difference:
    """How much more bits per byte one model needs than another, over weighed domains.

    Attributes:
        mean: weighed difference; below 0 the first model is better.
        standard_error: of `mean`, over windows of text; NaN of a domain with one window.
        first: bits per byte of the first model.
        second: of the second.
        windows: of all domains.
    """

    mean: float
    standard_error: float
    first: float
    second: float
    windows: int


def difference(
    first: LanguageModel,
    second: LanguageModel,
    corpus: Corpus,
    weights: Mapping[str, float],
    tokens: Mapping[str, int],
    length: int,
) -> Difference:
    """The difference of two models on the same windows of the validation text of `corpus`.

    Args:
        first: a cohort of one.
        second: a cohort of one, of any shape whose vocabulary has all tokens of the corpus.
        corpus: both models' tokenizer is its own.
        weights: validation domain → weight of its bits per byte.
        tokens: validation domain → tokens to read at most.
        length: tokens of a window.

    Raises:
        CorpusError: a domain's validation stream is shorter than one window.
    """
    domains = tuple(weights)
    nats = [_nats_by_window(model, corpus, domains, tokens, length) for model in (first, second)]
    mean = variance = 0.0
    totals = [0.0, 0.0]
    windows = 0
    for domain, weight in weights.items():
        ids = validation_windows(corpus.validation(domain), tokens[domain], length, domain)
        bytes_W = corpus.token_bytes[ids[:, 1:]].sum(axis=1)
        bits_W = [each[domain] / math.log(2) for each in nats]
        gap, error = ratio(bits_W[0] - bits_W[1], bytes_W)
        mean += weight * gap
        variance += (weight * error) ** 2  # domains are different text
        windows += len(ids)
        for i, bits in enumerate(bits_W):
            totals[i] += weight * float(bits.sum() / bytes_W.sum())
    return Difference(mean, math.sqrt(variance), totals[0], totals[1], windows)


def ratio(above_W: np.ndarray, below_W: np.ndarray) -> tuple[float, float]:
    """Σ above / Σ below over W windows, and the standard error of that ratio.

    The error is the ratio estimator's, by linearisation (Cochran, Sampling Techniques, 6.2). With
    one window it is NaN.
    """
    total, count = float(below_W.sum()), len(below_W)
    value = float(above_W.sum()) / total
    if count < 2:
        return value, math.nan
    rest_W = above_W - value * below_W
    return value, math.sqrt(count / (count - 1) * float((rest_W**2).sum())) / total


def _nats_by_window(
    model: LanguageModel,
    corpus: Corpus,
    domains: tuple[str, ...],
    tokens: Mapping[str, int],
    length: int,
) -> dict[str, np.ndarray]:
    """Domain → nats of each window, (W,) float64."""
    (found,) = evaluate(model, corpus, domains, tokens, length, each_token_of=domains)
    return {
        domain: found.token_losses[f"loss/{domain}"].astype(np.float64).reshape(-1, length).sum(1)
        for domain in domains
    }
