"""The parts of the user's own that a study file names, imported before anything is trained."""

from __future__ import annotations

from mixopt import surrogates
from mixopt.core.registry import is_own
from mixopt.models.config import ModelConfig
from mixopt.search import proposers
from mixopt.study.promote import Promote
from mixopt.study.settings import Study


def import_named_parts(study: Study) -> None:
    """Import every `package.module:Name` that the file names.

    Raises:
        StudyError: one does not import, or is no part of its kind.
    """
    with study.naming():
        if is_own(study.search.surrogate):
            surrogates.find(study.search.surrogate)
        if is_own(study.search.proposer):
            proposers.find(study.search.proposer)
        if study.upcycling is not None:
            _import_upcycling(study.upcycling)
        for model in _models(study):
            if is_own(model.router) and not model.dense:
                model.settings.check(model)


def _import_upcycling(promote: Promote) -> None:
    if is_own(promote.upcycler):
        from mixopt.models.upcycling.base import upcycler_class  # imports torch

        upcycler_class(promote.upcycler)
    if is_own(promote.merge):
        from mixopt.models.upcycling.merges import merge_class  # imports torch

        merge_class(promote.merge)
    if is_own(promote.router_start):
        from mixopt.models.upcycling.router_starts import router_start_class  # imports torch

        router_start_class(promote.router_start)


def _models(study: Study) -> list[ModelConfig]:
    return [study.proxy.model, *([study.upcycling.model] if study.upcycling else [])]
