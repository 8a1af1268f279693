"""Parts of the user's own, `package.module:Name` in a study file: where they are imported from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixopt.core.registry import is_own

KEYS = ("proposer", "surrogate", "router", "upcycler", "merge", "router_start")


def own_parts(values: Any) -> Iterator[str]:
    """Every `package.module:Name` that the nested `values` of a study file name as a part."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if key in KEYS and isinstance(value, str) and is_own(value):
            yield value
        else:
            yield from own_parts(value)


def import_from_folder(folder: Path, values: Any) -> None:
    """Have the parts that `values` name be imported from `folder` too, where there are any.

    After all other places, so that a file there stands in for nothing; for as long as the process
    lives, because parts are imported when they are first used. Ray's workers look where their
    driver does.

    Args:
        folder: of the study file.
        values: of the file, not validated yet.
    """
    path = str(folder.absolute())
    if path not in sys.path and any(own_parts(values)):
        sys.path.append(path)
