"""What a study knows of its training data: a corpus, or domains that its own trainer reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixopt.core.mixture import Mixture
from mixopt.corpus.manifest import digest
from mixopt.corpus.shards import Corpus
from mixopt.study.sections import Section, Tokens
from mixopt.trainers.job import Domain


class DomainTokens(Section):
    """A domain of a study without a corpus: only the study's own trainer reads it."""

    tokens: Tokens
    """Training tokens that there are; may stand alone in place of this section."""
    path: str | None = None
    """Where the trainer finds it, handed on as it is."""


def short_domain(value: Any) -> Any:
    """A domain may be written as its number of tokens alone."""
    return {"tokens": value} if isinstance(value, int | float | str) else value


@dataclass(frozen=True)
class DeclaredDomains:
    """Domains that the study file names; mixopt never reads them.

    >>> data = DeclaredDomains({"web": 1_200, "code": 300})
    >>> data.natural["web"]
    0.8

    Attributes:
        tokens: domain → training tokens that there are.
        paths: domain → where the trainer finds it, where the study file says so.
    """

    tokens: Mapping[str, int]
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """Their names, in the order of the study file."""
        return tuple(self.tokens)

    @property
    def natural(self) -> Mixture:
        """The natural mixture: domains by their tokens."""
        return Mixture.natural(self.tokens)

    @property
    def hash(self) -> str:
        """Identity of names and sizes; places may change."""
        return digest(list(self.tokens.items()))


TrainingData = Corpus | DeclaredDomains


def job_domains(data: TrainingData, limits: Mapping[str, int] | None) -> dict[str, Domain]:
    """What a job of the study's own trainer says of every domain.

    Args:
        data: the study's.
        limits: domain → tokens that it is cut to (`mixopt.study.trainings`); None cuts nothing.
    """
    paths = data.paths if isinstance(data, DeclaredDomains) else _shards(data)
    cut = limits or {}
    return {name: Domain(n, paths.get(name), cut.get(name)) for name, n in data.tokens.items()}


def _shards(corpus: Corpus) -> dict[str, str]:
    """Domain → the file with its training tokens."""
    records = corpus.manifest.domains
    return {name: str(corpus.path / records[name].train.path) for name in corpus.domains}
