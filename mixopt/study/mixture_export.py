"""The mixture that a study chose, with tokens and epochs, in the format of another trainer."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.corpus.shards import Corpus
from mixopt.study.data import DeclaredDomains, TrainingData
from mixopt.study.locked import require_begun
from mixopt.study.mixture_formats.base import Blend, DomainShare, mixture_format, tokens_by_domain
from mixopt.study.results import Verdict
from mixopt.study.settings import Study


def blend_of(
    study: Study, verdict: Verdict | None, paths: Mapping[str, str] | None = None
) -> Blend:
    """The mixture that `verdict` promotes, at the budget of `study`.

    Args:
        study: which knows how many tokens each domain has.
        verdict: the study's; None if there is none yet.
        paths: domain → where the trainer finds it; of a study without a corpus those that its file
            names are known.

    Raises:
        StudyError: there is no verdict, or `paths` names a domain that the mixture has not.
        CorpusError: the corpus is absent or broken.
    """
    require_begun(study)
    if verdict is None:
        raise StudyError(
            "there is no verdict yet, so no mixture is chosen",
            where=str(study.path),
            hint=f"Run `{shlex.join(['mixopt', 'select', str(study.path)])}` first",
        )
    data, mixture, given = study.training_data(), verdict.mixture, dict(paths or {})
    for name in given:
        _check_domain(name, mixture.domains)
    if isinstance(data, DeclaredDomains):
        given = {**data.paths, **given}
    tokens = tokens_by_domain(mixture, study.budget)
    domains = tuple(
        DomainShare(
            name=name,
            weight=mixture[name],
            tokens=tokens[name],
            available=data.tokens[name],
            path=given.get(name),
            **_in_corpus(data, name),
        )
        for name in mixture.domains
    )
    return Blend(
        study=study.name,
        candidate=verdict.promoted,
        budget=study.budget,
        seed=study.seed,
        corpus=data.hash,
        dtype=data.manifest.dtype if isinstance(data, Corpus) else "",
        domains=domains,
    )


def export_text(
    study: Study, verdict: Verdict | None, format: str, paths: Mapping[str, str] | None = None
) -> str:
    """The mixture of `blend_of` as the text of a file in `format`.

    Raises:
        StudyError: there is no such format; see also `blend_of`.
        CorpusError: the corpus is absent or broken.
    """
    return mixture_format(format).text(blend_of(study, verdict, paths))


def _in_corpus(data: TrainingData, name: str) -> dict[str, Any]:
    """What a corpus knows of its domain `name`; nothing without one."""
    if not isinstance(data, Corpus):
        return {}
    record = data.manifest.domains[name].train
    return {"documents": record.documents, "shard": str(data.path / record.path)}


def _check_domain(name: str, domains: tuple[str, ...]) -> None:
    """Refuse a path for a domain that is not there.

    Raises:
        StudyError: `name` is none of `domains`.
    """
    if name not in domains:
        near = difflib.get_close_matches(name, domains, n=1)
        question = f"Did you mean {near[0]!r}? " if near else ""
        raise StudyError(
            f"the mixture has no domain {name!r}",
            where=f"path of {name}",
            hint=f"{question}Choose from {', '.join(domains)}",
        )
