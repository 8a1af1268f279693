"""Mixtures that a study must try: `search.enqueue` of the study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.study.baselines import WORDS, word_mixtures
from mixopt.study.given_mixtures import mixture_of, naming, read_mixtures
from mixopt.study.settings import Study

KEY = "search.enqueue"


def enqueued_mixtures(study: Study, space: MixtureSpace) -> list[Mixture]:
    """The mixtures that `study` must try, each once, in the order of the file.

    Args:
        study: whose file names them, as weights, by a word, or as files of several.
        space: of the study.

    Raises:
        StudyError: a file cannot be read, or one is no mixture or lies outside the space; the line
            is named.
    """
    found: list[Mixture] = []
    with study.naming_line(KEY):
        for number, given in enumerate(study.search.enqueue):
            for mixture in _inside(study, space, number, given):
                if not any(mixture.same_as(other) for other in found):
                    found.append(mixture)
    return found


def _inside(study: Study, space: MixtureSpace, number: int, given: Any) -> list[Mixture]:
    """The mixtures of one entry, each checked against the space."""
    if isinstance(given, Mapping):
        with naming(str(number), "."):
            mixtures = [mixture_of(given, space.domains)]
            _check(mixtures[0], space)
        return mixtures
    if given in WORDS:
        with naming(str(number), "."):
            _check(mixture := word_mixtures(space.natural)[given], space)
        return [mixture]
    path = study.path.parent / given
    mixtures = read_mixtures(path, space.domains)
    for row, mixture in enumerate(mixtures, 1):
        with naming(f"{path}: mixture {row}" if len(mixtures) > 1 else str(path)):
            _check(mixture, space)
    return mixtures


def _check(mixture: Mixture, space: MixtureSpace) -> None:
    if not space.contains(mixture):
        raise StudyError(
            f"the mixture lies outside the study's space ({'; '.join(space.binding(mixture))})",
            hint="Change its weights, or compare with it instead (baseline)",
        )
