"""Commands of ours in messages."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """A command of ours, as a shell takes it whatever is in its paths."""
    return shlex.join(["mixopt", *map(str, words)])
