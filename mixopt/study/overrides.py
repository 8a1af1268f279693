"""Overrides of a study file on the command line: `--set search.rounds=3`.

They hold for the commands that name them, are checked as the file is, and every driver keeps those
that it ran with in the study's folder.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from mixopt.io import files
from mixopt.io.trial_files import read_object

FILE = "overrides.json"  # in a study folder
_NOW: ContextVar[tuple[str, ...]] = ContextVar("overrides", default=())


@contextlib.contextmanager
def overriding(overrides: Sequence[str]) -> Iterator[None]:
    """Let every study file that the block reads have `overrides`.

    Args:
        overrides: each `key=value`, dotted keys and values as YAML writes them.
    """
    token = _NOW.set(tuple(overrides))
    try:
        yield
    finally:
        _NOW.reset(token)


def current_overrides() -> tuple[str, ...]:
    """Those of the innermost `overriding` block; none outside."""
    return _NOW.get()


def read_overrides(home: Path) -> tuple[str, ...] | None:
    """The overrides that the last driver of the study in `home` ran with; None before the first."""
    kept = read_object(home / FILE).get("overrides")
    return tuple(map(str, kept)) if isinstance(kept, list) else None


def keep_overrides(home: Path, overrides: Sequence[str]) -> None:
    """Record in the study folder `home` what its driver runs with, if it is not what is there.

    Raises:
        FileError: it cannot be written.
    """
    if read_overrides(home) != tuple(overrides):
        files.write_json(home / FILE, {"overrides": list(overrides), "since": time.time()})


def overrides_note(before: Sequence[str] | None, now: Sequence[str]) -> str:
    """What a driver says of its overrides and of those before it; empty where there are none.

    >>> overrides_note(["search.rounds=3"], [])
    "without the last run's --set search.rounds=3"
    >>> overrides_note(None, ["search.rounds=3"])
    'with --set search.rounds=3'
    """
    parts = [f"with {as_options(now)}"] if now else []
    gone = [text for text in before or () if text not in now]
    parts += [f"without the last run's {as_options(gone)}"] if gone else []
    return ", ".join(parts)


def as_options(overrides: Sequence[str]) -> str:
    """The overrides as a shell takes them.

    >>> as_options(["select.seeds=3", "guardrails={law: 1%}"])
    "--set select.seeds=3 --set 'guardrails={law: 1%}'"
    """
    return shlex.join(word for text in overrides for word in ("--set", text))
