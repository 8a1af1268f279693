"""Plain text: every file is a document."""

from __future__ import annotations

from collections.abc import Iterator

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import InputFile, blocks
from mixopt.corpus.sources.base import Document, OnBroken, Source, decode


class Text(Source):
    """Documents from text files, plain or compressed, each read as a whole."""

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """One document; a file that is not UTF-8 is broken."""
        with self.open(file) as raw:
            contents = b"".join(blocks(raw, file.url))
        try:
            text = decode(contents, file.url)
        except CorpusError as error:
            on_broken(error)
        else:
            yield text
