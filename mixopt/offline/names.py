"""Names on a command line: in full, or any part that only one of the file's names has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mixopt.core.errors import StudyError
from mixopt.offline.layouts import listed


def find_name(name: str, names: Sequence[str], kind: str, where: str = "") -> str:
    """The one of `names` that is `name`, or else alone ends in it, or else alone contains it.

    Args:
        name: as it was said.
        names: those there are.
        kind: what they name, for errors: `metric`, `domain`.
        where: what is at fault, for errors.

    Raises:
        StudyError: there is none, or several.
    """
    if name in names:
        return name
    for found in (
        [known for known in names if known.endswith(name)],
        [known for known in names if name.lower() in known.lower()],
    ):
        if name and len(found) == 1:
            return found[0]
        if name and found:
            raise StudyError(
                f"{name!r} could be {listed(found)}", where=where, hint="Give more of the name"
            )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or list(names)
    raise StudyError(
        f"no {kind} is called {name!r}", where=where, hint=f"Choose from {listed(near)}"
    )
