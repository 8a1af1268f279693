"""Documents by their hash: which were seen, and which are held out."""

from __future__ import annotations

import hashlib

import numpy as np

from mixopt.corpus.sources import Document


def document_hash(document: Document) -> int:
    """A 64-bit hash of a text's UTF-8 bytes, or of token ids.

    Among 10⁸ documents, the chance that any two different ones share it is 3·10⁻⁴.
    """
    if isinstance(document, str):
        contents = document.encode()
    else:
        contents = b"tokens\0" + document.astype("<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(contents, digest_size=8).digest(), "little")


def held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Which documents are validation, (n,) bool: by hash alone, so wherever they turn up."""
    held: np.ndarray = hashes < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    return held


class SeenDocuments:
    """A growing set of document hashes: 8 bytes a document, where a Python set takes about 70.

    Sorted arrays of doubling sizes, merged as they fill (a log-structured merge tree).
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Adds `hashes` (n,) uint64; says which were new, (n,) bool, once for each new hash."""
        _, first = np.unique(hashes, return_index=True)
        new = np.zeros(len(hashes), dtype=bool)
        new[first] = True
        for run in self._runs:
            new &= ~contains(run, hashes)
        self._runs.append(np.sort(hashes[new]))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs.append(np.sort(np.concatenate([self._runs.pop(), self._runs.pop()])))
        return new

    def sorted(self) -> np.ndarray:
        """All hashes, sorted, (n,) uint64."""
        return np.sort(np.concatenate([np.empty(0, np.uint64), *self._runs]))


def contains(ordered: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Which of `hashes` (n,) are in the sorted array `ordered`, (n,) bool."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    found: np.ndarray = ordered[place] == hashes
    return found
