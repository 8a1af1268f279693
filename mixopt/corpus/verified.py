"""A corpus compared with its checksums: once per study and machine, before anything trains there.

What was compared is remembered in the study folder, as the corpus may lie on a read-only disk.
"""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path

from mixopt.corpus.shards import Corpus
from mixopt.io import files, locks


def verify_once(corpus: Corpus, records: Path) -> None:
    """Compare `corpus` with its checksums, unless this machine did and no file was written since.

    Of several workers on one machine the first reads the files; the others wait for it.

    Args:
        corpus: what is about to be trained on.
        records: folder of the study that holds a file per machine.

    Raises:
        CorpusError: a file is not the one that was built, or holds ids beyond the vocabulary.
        FileError: the record cannot be written.
    """
    record, state = records / f"{socket.gethostname()}.json", corpus.state()
    if _remembered(record) == state:
        return
    with locks.hold(record.with_suffix(".lock"), "the comparison of the corpus", patience=math.inf):
        if _remembered(record) != state:
            corpus.verify()
            files.write_json(record, {"corpus": str(corpus.path), "state": state})


def _remembered(record: Path) -> str:
    """State of the corpus that was compared; empty where it must be compared again."""
    try:
        return str(json.loads(record.read_bytes())["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
