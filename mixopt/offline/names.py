"""Names on a command line: whole, or any part that only one name of the file has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mixopt.core.errors import StudyError
from mixopt.offline.layouts import listed


def find_name(name: str, names: Sequence[str], kind: str, where: str = "") -> str:
    """The name that `name` stands for: an exact match, else the only ending, else the only part.

    Args:
        name: as the user wrote it.
        names: the names of the file.
        kind: `metric` or `domain`, for errors.
        where: the option, for errors.

    Raises:
        StudyError: no name matches, or several do.

    >>> find_name("arxiv", ["train_arxiv", "train_web"], "domain")
    'train_arxiv'
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
    raise StudyError(f"no {kind} is called {name!r}", where=where, hint=suggestion(name, names))


def suggestion(name: str, names: Sequence[str], most: int = 5) -> str:
    """The fix for an unknown name: the nearest of `names`, else the first `most` of them.

    >>> suggestion("book", ["books", "web"]), suggestion("x", ["books", "web"])
    ('Did you mean books?', 'Choose from books, web')
    """
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose from {listed(names, most)}"
