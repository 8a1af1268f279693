"""What a source is, and the names of those that come with mixopt."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mixopt.core.errors import CorpusError, StudyError
from mixopt.core.registry import resolve
from mixopt.corpus.files import CountingFile, InputFile, open_counting

Document = str | np.ndarray
"""A text, or its token ids (n,) of any integer type, without an end-of-text token."""

OnBroken = Callable[[CorpusError], None]
"""Called for a document that cannot be used: raises the error, or counts it and returns."""

SOURCES: Mapping[str, str] = {
    "jsonl": "mixopt.corpus.sources.jsonl:JsonLines",
    "parquet": "mixopt.corpus.sources.parquet:Parquet",
    "text": "mixopt.corpus.sources.text:Text",
    "tokens": "mixopt.corpus.sources.tokens:Tokens",
}

ENDINGS: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".npy": "tokens",
    ".bin": "tokens",
}


class Source(ABC):
    """Streams the documents of one domain, file by file.

    A subclass implements `documents` and opens files with `open`, which counts what is read.
    `mixopt.testing.sources.SourceConformance` holds the tests that every source passes.

    Args:
        files: the domain's files; all of them exist.
        text: name of the field or column that holds the text, for formats that have such.
        options: further settings of this source, as in the sources file.

    Raises:
        CorpusError: an option is not known or not valid.
    """

    option_names: ClassVar[frozenset[str]] = frozenset()
    """Keys that `options` may have."""

    tokenized: ClassVar[bool] = False
    """Whether documents are token ids already; the corpus' tokenizer must then be given."""

    def __init__(
        self,
        files: Sequence[InputFile],
        text: str = "text",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.files, self.text, self.options = list(files), text, dict(options or {})
        self._open: CountingFile | None = None
        self._counted = 0
        if unknown := self.options.keys() - self.option_names:
            raise CorpusError(
                f"{type(self).__name__} has no option {sorted(unknown)[0]!r}",
                hint=f"It knows {', '.join(sorted(self.option_names)) or 'none'}",
            )

    @abstractmethod
    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """The documents of one file in their order, streamed.

        A document that cannot be used (not only the file as a whole) goes to `on_broken` with
        its file and line; if that returns, the source goes on with the next. Always the same
        documents in the same order for the same contents.

        Raises:
            CorpusError: from `on_broken`, or because the file cannot be read on.
        """

    def open(self, file: InputFile) -> CountingFile:
        """The stored bytes of `file`, counted in `bytes_read`."""
        self._counted = self.bytes_read
        self._open = open_counting(file.url)
        return self._open

    @property
    def bytes_read(self) -> int:
        """Stored bytes read so far, over all files."""
        return self._counted + (self._open.count if self._open else 0)


def decode(contents: bytes, where: str) -> str:
    """UTF-8 to text, without a byte-order mark: that is no part of the text.

    Raises:
        CorpusError: it is not UTF-8.
    """
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorpusError(
            "is UTF-16 by its byte-order mark, not UTF-8",
            where=where,
            hint="Convert the file: `iconv -f UTF-16 -t UTF-8`",
        )
    contents = contents.removeprefix(codecs.BOM_UTF8)
    try:
        return contents.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"is not UTF-8: byte {contents[error.start]:#04x} at {error.start}",
            where=where,
            hint="Convert it to UTF-8, or leave it out with `on_error: skip`",
        ) from None


def find_source(name: str) -> type[Source]:
    """The class that `source: name` stands for.

    Raises:
        CorpusError: there is none.
    """
    try:
        # mypy takes an abstract class for no class at all where a type is wanted
        return resolve("source", name, SOURCES, Source)  # type: ignore[type-abstract]
    except StudyError as error:
        raise CorpusError(error.what, where=error.where, hint=error.hint) from error


def infer_source(files: Sequence[InputFile]) -> str:
    """The source's name by the files' endings.

    Raises:
        CorpusError: an ending is not known, or they do not agree.
    """
    names: dict[str, list[InputFile]] = {}
    for file in files:
        if file.ending not in ENDINGS:
            raise CorpusError(
                f"cannot tell the format by the ending {file.ending!r}",
                where=file.url,
                hint=f"Say `source:`, one of {', '.join(SOURCES)}",
            )
        names.setdefault(ENDINGS[file.ending], []).append(file)
    if len(names) > 1:
        most, *others = sorted(names, key=lambda name: -len(names[name]))
        odd = names[others[0]][0]
        counts = " and ".join(f"{len(names[name])} {name}" for name in (most, *others))
        raise CorpusError(
            f"is {others[0]}, among files of other formats ({counts})",
            where=odd.url,
            hint=f"Name the files of one format, such as `*{names[most][0].ending}`, or give each "
            "format its own domain",
        )
    return next(iter(names))
