"""The corpus that benchmarks train on: text of this machine, as `mixopt demo` has it."""

from __future__ import annotations

from pathlib import Path

from mixopt.core.errors import CorpusError
from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.corpus.environment import corpus_from_environment
from mixopt.corpus.shards import Corpus
from mixopt.search import designs

MEGABYTES, VOCABULARY = 3.0, 2048


def corpus_in(folder: Path, megabytes: float = MEGABYTES, vocabulary: int = VOCABULARY) -> Corpus:
    """The corpus in `folder`, gathered first if it is not there."""
    try:
        return Corpus.open(folder)
    except CorpusError:
        return corpus_from_environment(folder, megabytes, vocabulary)


def drawn_mixtures(corpus: Corpus, count: int, seed: int = 0) -> list[Mixture]:
    """Natural, uniform, and Dirichlet draws: the first swarm of a study."""
    space = MixtureSpace(domains=corpus.domains, natural=corpus.natural)
    return designs.design(space, count, seed)
