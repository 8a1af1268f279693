"""The dense models that a promotion trains before it upcycles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.models.config import ModelConfig
from mixopt.study.promote import Promote


@dataclass(frozen=True)
class DenseTrainings:
    """A dense seed model, and the experts branched from it.

    Attributes:
        shape: of all of them.
        domains: those that get an expert, in expert order; none where the upcycler takes the seed
            alone.
    """

    shape: ModelConfig
    domains: tuple[str, ...]


def dense_models(promote: Promote, model: ModelConfig, order: Sequence[str]) -> DenseTrainings:
    """What `promote` upcycles into a model of the shape `model`.

    Args:
        promote: the study file's section.
        model: shape of the upcycled model, with its vocabulary.
        order: domains, those first that get an expert first.

    Raises:
        StudyError: there is no such upcycler, it has no such setting, or so many experts cannot be
            made of these domains.
    """
    from mixopt.models.upcycling.base import make_upcycler  # imports torch
    from mixopt.models.upcycling.states import dense_config

    upcycler, names = make_upcycler(promote.upcycler, promote.upcycler_settings), tuple(order)
    names = names[: model.experts]
    taken = set(upcycler.sources(names, model.experts))
    return DenseTrainings(dense_config(upcycler, model), tuple(n for n in names if n in taken))


def first(named: Sequence[str], domains: Sequence[str]) -> list[str]:
    """`domains`, those `named` first.

    >>> first(["law"], ["code", "law", "web"])
    ['law', 'code', 'web']
    """
    return [*named, *(domain for domain in domains if domain not in named)]
