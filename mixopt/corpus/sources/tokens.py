"""Already tokenized files: `.npy`, or raw `.bin`, with documents closed by an end-of-text id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mixopt.corpus.files import BLOCK, COMPRESSED, CountingFile, InputFile
from mixopt.corpus.sources.base import Document, OnBroken, Source
from mixopt.errors import CorpusError

LONGEST = 1 << 20  # tokens; a longer document is cut, so that no file is held as a whole


class Tokens(Source):
    """Documents from token ids, made with the tokenizer that the corpus is given.

    Options: `end_of_text`, the id that separates documents (needed); `dtype` of `.bin` files
    (`uint16` if not given; a `.npy` file says its own).
    """

    option_names: ClassVar[frozenset[str]] = frozenset({"dtype", "end_of_text"})
    tokenized: ClassVar[bool] = True

    def __init__(
        self,
        files: Sequence[InputFile],
        text: str = "text",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(files, text, options)
        self._end = self.options.get("end_of_text")
        if not isinstance(self._end, int):
            raise CorpusError(
                "tokenized files need the id that separates their documents",
                mend="Set `options: {end_of_text: ID}`",
            )
        try:
            self._dtype = np.dtype(self.options.get("dtype", "uint16"))
        except TypeError:
            self._dtype = np.dtype(object)
        if self._dtype.kind not in "ui":
            raise CorpusError(
                f"dtype {self.options['dtype']!r} is not an integer type",
                mend="Use uint16, int32 or the like",
            )

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """The ids between end-of-text ids; empty documents are passed over."""
        if file.url.endswith(COMPRESSED):
            raise CorpusError("is compressed", where=file.url, mend="Uncompress token files")
        with self.open(file) as raw:
            dtype = self._header(raw, file) if file.ending == ".npy" else self._dtype
            begun = np.empty(0, dtype=dtype)
            for ids in self._blocks(raw, dtype, file):
                pieces = np.split(ids, np.flatnonzero(ids == self._end) + 1)
                for piece in pieces[:-1]:
                    document = np.concatenate([begun, piece[:-1]])
                    begun = begun[:0]
                    if len(document):
                        yield document
                begun = np.concatenate([begun, pieces[-1]])
                if len(begun) >= LONGEST:
                    yield begun
                    begun = begun[:0]
            if len(begun):
                yield begun

    def _blocks(self, raw: CountingFile, dtype: np.dtype, file: InputFile) -> Iterator[np.ndarray]:
        rest = b""
        while block := raw.read(BLOCK):
            block = rest + block
            whole = len(block) - len(block) % dtype.itemsize
            rest = block[whole:]
            yield np.frombuffer(block[:whole], dtype=dtype)
        if rest:
            raise CorpusError(
                f"ends in the middle of a token of {dtype.itemsize} bytes",
                where=file.url,
                mend="Set `options: {dtype: …}` to the type of its ids",
            )

    def _header(self, raw: CountingFile, file: InputFile) -> np.dtype:
        try:
            version = np.lib.format.read_magic(raw)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(raw)
        except (ValueError, EOFError) as error:
            raise CorpusError(f"is not a .npy file: {error}", where=file.url) from error
        if len(shape) != 1 or dtype.kind not in "ui":
            raise CorpusError(
                f"holds {dtype} of shape {shape}, not one row of integers", where=file.url
            )
        if file.size - raw.tell() != shape[0] * dtype.itemsize:
            raise CorpusError(
                f"is cut: it should hold {shape[0]:,} tokens",
                where=file.url,
                mend="Fetch or write it again",
            )
        return np.dtype(dtype)
