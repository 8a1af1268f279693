"""Names in a study file → classes: a room's own registry, or a user's `package.module:Name`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Mapping
from typing import TypeVar

from mixopt.core.errors import StudyError

T = TypeVar("T")


def check_name(
    kind: str, name: str, registered: Collection[str], *, where: str = "", own: bool = True
) -> None:
    """Refuse `name` unless it is registered or a `package.module:Name`; imports nothing.

    Args:
        kind: what is looked for (`router`, `surrogate`, …).
        name: as it was written.
        registered: registry names.
        where: for the error.
        own: whether `package.module:Name` is allowed.

    Raises:
        StudyError: it is neither; the nearest name and all of them are given.
    """
    if name in registered or (own and is_own(name)):
        return
    near = difflib.get_close_matches(name, registered, n=1, cutoff=0.6)
    question = f"Did you mean {near[0]!r}? " if near else ""
    besides = ", or give package.module:Name" if own else ""
    raise StudyError(
        f"no {kind} is called {name!r}",
        where=where,
        hint=f"{question}Choose one of {', '.join(sorted(registered))}{besides}",
    )


def is_own(name: str) -> bool:
    """Whether `name` has the form `package.module:Name`."""
    module_name, _, class_name = name.partition(":")
    return bool(module_name and class_name)


def resolve(kind: str, name: str, registered: Mapping[str, str], base: type[T]) -> type[T]:
    """The class that `name` stands for.

    Args:
        kind: what is looked for, for the error (`router`, `surrogate`, …).
        name: a key of `registered`, or `package.module:Name`.
        registered: registry name → `package.module:Name`; imported only when asked for.
        base: the class that the part must derive from.

    Raises:
        StudyError: the name is unknown, does not import, or is not a `base`.
    """
    check_name(kind, name, registered, where=kind)
    module_name, _, class_name = registered.get(name, name).partition(":")
    try:
        part = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"{kind} {name!r} does not import: {error}",
            where=kind,
            hint="Put its file beside the study file, install its package, or set PYTHONPATH",
        ) from error
    if not (isinstance(part, type) and issubclass(part, base)):
        raise StudyError(f"{kind} {name!r} is not a {base.__name__}", where=kind)
    return part
