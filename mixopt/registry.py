"""Names in a study file → classes: a room's own registry, or a user's `package.module:Name`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar

from mixopt.errors import StudyError

T = TypeVar("T")


def resolve(kind: str, name: str, known: Mapping[str, str], base: type[T]) -> type[T]:
    """The class that `name` stands for.

    Args:
        kind: what is looked for, for the error (`router`, `surrogate`, …).
        name: a key of `known`, or `package.module:Name`.
        known: registry name → `package.module:Name`; imported only when asked for.
        base: the class that the found one must derive from.

    Raises:
        StudyError: the name is unknown, does not import, or is not a `base`.
    """
    path = known.get(name, name)
    module_name, _, class_name = path.partition(":")
    if not class_name:
        raise StudyError(
            f"no {kind} is called {name!r}",
            where=kind,
            mend=f"Choose one of {', '.join(sorted(known))}, or give package.module:Name",
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise StudyError(f"{kind} {name!r} does not import: {error}", where=kind) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise StudyError(f"{kind} {name!r} is not a {base.__name__}", where=kind)
    return found
