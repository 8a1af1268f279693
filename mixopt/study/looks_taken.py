"""The looks that were taken at a study, kept by its ledger and by its folder.

A look that was taken stays taken, though the ledger may be moved, or made anew from the trials'
folders: of the two records the longer one counts.
"""

from __future__ import annotations

from pathlib import Path

from mixopt.io import files
from mixopt.selection.looks import Looks
from mixopt.study.ledger import Ledger

FILE = "looks.json"  # in a study folder


def looks_taken(ledger: Ledger, home: Path) -> Looks | None:
    """The looks taken at the study so far; None before the first.

    Args:
        ledger: of the study.
        home: the study folder.

    Raises:
        FileError: the folder's record cannot be read.
    """
    kept = [ledger.looks()]
    if (home / FILE).exists():
        hint = "Restore it; it says how often the study was judged"
        kept.append(files.read_json(home / FILE, Looks.from_json, hint=hint))
    return max((it for it in kept if it is not None), key=lambda it: len(it.taken), default=None)


def keep_looks(ledger: Ledger, home: Path, looks: Looks) -> None:
    """Record the looks that were taken, in the study folder and the ledger."""
    files.write_json(home / FILE, looks.to_json())
    ledger.keep_looks(looks)
