"""What a format of mixtures is: the mixture with its budget in, the text of one file out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import yaml

from mixopt.core.mixture import Mixture
from mixopt.core.registry import resolve
from mixopt.study.mixture_formats import FORMATS

PLACEHOLDER = "PATH_OF_{}"  # in place of a path that is not known, with the domain's name


@dataclass(frozen=True)
class DomainShare:
    """One domain of a mixture at its budget.

    Attributes:
        name: of the domain.
        weight: share of the tokens, in [0, 1].
        tokens: of the budget.
        available: training tokens that there are.
        documents: that these are in; None if the study has no corpus.
        shard: file of the corpus with the training tokens: uint16 or uint32, no header; None if
            the study has no corpus.
        path: where the trainer finds the domain; None if that was not given.
    """

    name: str
    weight: float
    tokens: int
    available: int
    documents: int | None = None
    shard: str | None = None
    path: str | None = None

    @property
    def epochs(self) -> float:
        """How often the run sees each of the domain's tokens."""
        return self.tokens / self.available if self.tokens else 0.0

    @property
    def path_or_placeholder(self) -> str:
        """The path, or a name that stands for it."""
        return self.path or PLACEHOLDER.format(self.name)


@dataclass(frozen=True)
class Blend:
    """A mixture as other trainers need it.

    Attributes:
        study: its name.
        candidate: what the verdict calls the mixture: found, natural, …
        budget: tokens of the run.
        seed: of the study.
        corpus: hash of the corpus, or of the domains that the study file declares.
        dtype: of the corpus' token files; empty if the study has none.
        domains: in the order of the corpus.
    """

    study: str
    candidate: str
    budget: int
    seed: int
    corpus: str
    dtype: str
    domains: tuple[DomainShare, ...]

    @property
    def used(self) -> tuple[DomainShare, ...]:
        """The domains with a weight above 0: trainers need not open the others."""
        return tuple(domain for domain in self.domains if domain.weight > 0)

    def comment(self) -> str:
        """What the mixture is, as lines that begin with `#`."""
        width = max(len(domain.name) for domain in self.domains)
        rows = [
            f"#   {d.name:<{width}}  {d.weight:9.4%}  {d.tokens:>16,}  {d.epochs:7.3f}"
            for d in self.domains
        ]
        lines = [
            f"# Mixture `{self.candidate}` of the mixopt study {self.study}, "
            f"for {self.budget:,} tokens.",
            f"#   {'domain':<{width}}  {'weight':>9}  {'tokens':>16}  {'epochs':>7}",
            *rows,
        ]
        return "\n".join(lines) + "\n"


class MixtureFormat(ABC):
    """A file of another tool that says how domains are mixed.

    Attributes:
        path_is: what the path of a domain is in this format; empty where it holds none.
    """

    path_is: ClassVar[str] = ""

    @abstractmethod
    def text(self, blend: Blend) -> str:
        """The file's text, with a placeholder for each path that is not known.

        Raises:
            StudyError: the format cannot hold a path.
        """

    def unknown_paths(self, blend: Blend) -> list[str]:
        """The domains for which `text` writes a placeholder."""
        return [d.name for d in blend.used if d.path is None] if self.path_is else []


def mixture_format(name: str) -> MixtureFormat:
    """The format called `name`, or a user's `package.module:Name`.

    Raises:
        StudyError: there is none of that name.
    """
    kind = resolve("mixture format", name, FORMATS, MixtureFormat)  # type: ignore[type-abstract]
    return kind()


def tokens_by_domain(mixture: Mixture, budget: int) -> dict[str, int]:
    """Whole tokens per domain that sum to `budget`, by largest remainders.

    >>> tokens_by_domain(Mixture.of({"web": 2, "code": 1}), 100)
    {'web': 67, 'code': 33}
    """
    exact = mixture.array * budget
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: budget - int(whole.sum())]] += 1
    return dict(zip(mixture.domains, whole.tolist(), strict=True))


def yaml_text(values: Mapping[str, Any]) -> str:
    """`values` as YAML, in their own order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000)
