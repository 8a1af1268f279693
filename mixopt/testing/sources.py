"""What every source must do, as a test class: subclass it and say how to write a file.

class TestMine(SourceConformance):
    source = MySource
    ending = ".mine"

    def write(self, path, texts): ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import InputFile, find
from mixopt.corpus.sources import Document, Source

TEXTS = ["one\n", "zwei – drei", " quatre\tcinq\n\nsix", "siete 🙂 \\u00e9", '{"nine": 9}', "十"]


class SourceConformance:
    """Tests that every `Source` passes; collected by pytest where it is subclassed."""

    source: type[Source]
    """The class under test."""

    ending: ClassVar[str]
    """Ending of its files."""

    options: ClassVar[Mapping[str, Any]] = {}
    """Options that it is given."""

    one_per_file: ClassVar[bool] = False
    """Whether a file is one document."""

    @abstractmethod
    def write(self, path: Path, texts: Sequence[str]) -> None:
        """Writes `texts` as documents into the file `path`."""

    def same(self, document: Document, text: str) -> bool:
        """Whether `document` is what was written for `text`."""
        return isinstance(document, str) and document == text

    def _files(self, folder: Path) -> tuple[list[InputFile], list[str]]:
        """Two files and all their texts in order."""
        parts = [TEXTS[:1], TEXTS[1:2]] if self.one_per_file else [TEXTS[:2], TEXTS[2:]]
        for number, texts in enumerate(parts):
            self.write(folder / f"{number}{self.ending}", texts)
        return find([f"*{self.ending}"], folder), [text for texts in parts for text in texts]

    def _read(self, source: Source) -> list[Document]:
        return [d for file in source.files for d in source.documents(file, _refuse)]

    def test_gives_every_document_in_order(self, tmp_path: Path) -> None:
        """Nothing lost, nothing changed, nothing moved."""
        files, texts = self._files(tmp_path)
        documents = self._read(self.source(files, "text", self.options))
        assert len(documents) == len(texts)
        assert all(map(self.same, documents, texts))

    def test_gives_the_same_documents_when_read_again(self, tmp_path: Path) -> None:
        """A source is read twice: for the tokenizer's sample and for the shards."""
        files, _ = self._files(tmp_path)
        source = self.source(files, "text", self.options)
        first, again = self._read(source), self._read(source)
        assert len(first) == len(again)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))

    def test_counts_the_bytes_that_it_read(self, tmp_path: Path) -> None:
        """Progress comes to an end, and never goes back."""
        files, _ = self._files(tmp_path)
        source = self.source(files, "text", self.options)
        seen = [0]
        for file in files:
            for _ in source.documents(file, _refuse):
                seen.append(source.bytes_read)
        assert seen == sorted(seen)
        assert seen[-1] > 0

    def test_may_be_left_in_the_middle_of_a_file(self, tmp_path: Path) -> None:
        """The tokenizer's sample reads heads of files only."""
        files, texts = self._files(tmp_path)
        source = self.source(files, "text", self.options)
        for file in files:
            next(iter(source.documents(file, _refuse)))
        assert len(self._read(source)) == len(texts)

    def test_refuses_an_option_that_it_does_not_know(self, tmp_path: Path) -> None:
        """A misspelt option is not passed over."""
        files, _ = self._files(tmp_path)
        with pytest.raises(CorpusError, match="no option 'delimitre'"):
            self.source(files, "text", {**self.options, "delimitre": ","})

    def test_names_the_file_that_it_cannot_open(self, tmp_path: Path) -> None:
        """A file that went away after it was found."""
        files, _ = self._files(tmp_path)
        source = self.source(files, "text", self.options)
        Path(files[0].url).unlink()
        with pytest.raises(CorpusError) as caught:
            self._read(source)
        assert caught.value.where.startswith(files[0].url)


def _refuse(error: CorpusError) -> None:
    raise error
