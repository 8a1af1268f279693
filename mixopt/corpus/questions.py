"""A task's questions as tokens, read: what `mixopt.corpus.tasks` prepared. Needs numpy alone.

A *row* is a question with one of its answers: the tokens of both, an end-of-text token first, as
documents follow one in training.

Shapes: Q questions, R rows, n tokens of all rows together.
"""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.io import files


@dataclass(frozen=True)
class Questions:
    """The questions of one task.

    Attributes:
        tokens: (n,) int32, row after row.
        starts: (R + 1,) int64, where rows begin in `tokens`; the last is n.
        contexts: (R,) int64, tokens of each row before its answer.
        sizes: (R,) int64, UTF-8 bytes of each row's answer.
        first: (Q + 1,) int64, the first row of each question; the last is R.
        right: (Q,) int64, the row of each question's right answer.
        lines: (Q,) int64, the line of each question in its file.
    """

    tokens: np.ndarray
    starts: np.ndarray
    contexts: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    right: np.ndarray
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.right)

    @property
    def lengths(self) -> np.ndarray:
        """(R,) tokens of each row."""
        return np.diff(self.starts)

    @property
    def choices(self) -> np.ndarray:
        """(Q,) answers that each question gives to choose from; 1 where there is no choice."""
        return np.diff(self.first)

    def spread(self, tokens: int, length: int) -> np.ndarray:
        """Questions, evenly spread over all, whose rows cut to `length` hold about `tokens` tokens.

        Returns:
            (q,) int64 in order, at least one.
        """
        read = int(np.minimum(self.lengths - 1, length).sum())
        taken = max(1, min(len(self), len(self) * tokens // read))
        return np.arange(taken) * len(self) // taken

    def row(self, number: int, length: int) -> np.ndarray:
        """Tokens of a row, at most the last `length` + 1, (t,) int32: contexts are cut left."""
        end = int(self.starts[number + 1])
        tokens: np.ndarray = self.tokens[max(int(self.starts[number]), end - length - 1) : end]
        return tokens

    def write(self, path: Path) -> None:
        """Write them to the `.npz` file `path`, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dataclasses.asdict(self))
        files.write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Questions:
        """The questions in the file `path`.

        Raises:
            CorpusError: it is missing or broken.
        """
        try:
            with np.load(path) as found:
                return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})
        except Exception as error:  # numpy's, zipfile's, zlib's, the disk's: all the same
            raise CorpusError(
                f"prepared questions cannot be read: {error}",
                where=str(path),
                hint="Remove the file and run the study again: it is made anew",
            ) from error
