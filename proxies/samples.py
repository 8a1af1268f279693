"""Sample text of a corpus as token ids: what routers start from, and receipts are measured on."""

from __future__ import annotations

import numpy as np

from mixopt.corpus.shards import Corpus
from mixopt.proxies.evaluation import validation_windows

SEQUENCES = 16  # per domain

Samples = dict[str, np.ndarray]  # domain → token ids (n, T)


def held_out_samples(corpus: Corpus, length: int) -> Samples:
    """Of every validation domain, sequences of `length` tokens, evenly spread over its text.

    Raises:
        CorpusError: a domain's text is shorter than one sequence.
    """
    return {n: _windows(corpus.validation(n), n, length) for n in corpus.validation_domains}


def training_samples(corpus: Corpus, length: int) -> Samples:
    """The same of the training text, of domains that have as much."""
    streams = {name: corpus.train(name) for name in corpus.domains}
    return {n: _windows(each, n, length) for n, each in streams.items() if len(each) > length}


def _windows(stream: np.ndarray, name: str, length: int) -> np.ndarray:
    return validation_windows(stream, SEQUENCES * length, length, name)[:, :-1]
