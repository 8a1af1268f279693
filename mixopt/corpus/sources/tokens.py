"""Already tokenized files: `.npy`, or raw `.bin`, with documents closed by an end-of-text id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import BLOCK, COMPRESSED, CountingFile, InputFile, exists, open_counting
from mixopt.corpus.sources.base import Document, OnBroken, Source

LONGEST = 1 << 20  # tokens; a longer document is cut, so that no file is held as a whole
ENOUGH = 64  # ids from which a share of zeros means something
MEGATRON_MAGIC = b"MMIDIDX\0\0" + (1).to_bytes(8, "little")
MEGATRON_HEAD = len(MEGATRON_MAGIC) + 1
MEGATRON_TYPES = {1: "uint8", 2: "int8", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


class Tokens(Source):
    """Documents from token ids, made with the tokenizer that the corpus is given.

    Options: `end_of_text`, the id that separates documents (needed); `dtype` of raw ids: `.bin`
    files, and `.npy` files without NumPy's header, as Dolma and OLMo write them. A `.npy` file
    with a header says its own, and so does the `.idx` file that Megatron writes beside `.bin`.
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
                hint="Set `options: {end_of_text: ID}`",
            )
        self._dtype: np.dtype | None = None
        if "dtype" in self.options:
            self._dtype = _declared(self.options["dtype"])

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """The ids between end-of-text ids; empty documents are passed over."""
        if file.url.endswith(COMPRESSED):
            raise CorpusError("is compressed", where=file.url, hint="Uncompress token files")
        with self.open(file) as raw:
            dtype = self._type(raw, file)
            begun = np.empty(0, dtype=dtype)
            for number, ids in enumerate(self._blocks(raw, dtype, file)):
                if number == 0:
                    _check_width(ids, file)
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
                hint="Set `options: {dtype: …}` to the type of its ids",
            )

    def _type(self, raw: CountingFile, file: InputFile) -> np.dtype:
        """The type of the file's ids, `raw` then standing at the first."""
        if file.ending == ".npy":
            magic = raw.read(len(np.lib.format.MAGIC_PREFIX))
            raw.seek(0)
            if magic == np.lib.format.MAGIC_PREFIX:
                return self._header(raw, file)
        indexed = _megatron_type(file)
        if self._dtype is not None and indexed is not None and self._dtype != indexed:
            raise CorpusError(
                f"holds {indexed} by its .idx file, not {self._dtype}",
                where=file.url,
                hint="Remove `dtype` from the options",
            )
        dtype = self._dtype if indexed is None else indexed
        if dtype is not None:
            return dtype
        kind = "has no NumPy header: it looks like" if file.ending == ".npy" else "holds"
        raise CorpusError(
            f"{kind} raw ids, and nothing says of what type",
            where=file.url,
            hint="Set `options: {dtype: uint16}`, or uint32 or int32: the type that they were "
            "written in (Dolma: uint16 up to 65,536 tokens; Megatron: int32)",
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
                hint="Fetch or write it again",
            )
        return np.dtype(dtype)


def _declared(name: object) -> np.dtype:
    """The integer type of that name.

    Raises:
        CorpusError: it is none.
    """
    try:
        dtype: np.dtype = np.dtype(name)  # type: ignore[call-overload]  # whatever the file holds
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "ui":
        raise CorpusError(
            f"dtype {name!r} is not an integer type", hint="Use uint16, int32 or the like"
        )
    return dtype


def _megatron_type(file: InputFile) -> np.dtype | None:
    """What the `.idx` file beside a `.bin` file says its ids are; None without one.

    Layout: `megatron/core/datasets/indexed_dataset.py` of NVIDIA/Megatron-LM: magic, version
    (8 bytes), code of the type (1 byte), then counts and places of the sequences.

    Raises:
        CorpusError: the `.idx` file is of another kind, or names no integer type.
    """
    url = file.url.removesuffix(".bin") + ".idx"
    if file.ending != ".bin" or not exists(url):
        return None
    with open_counting(url) as raw:
        head = raw.read(MEGATRON_HEAD)
    code = head[-1] if len(head) == MEGATRON_HEAD else 0
    if not head.startswith(MEGATRON_MAGIC) or code not in MEGATRON_TYPES:
        raise CorpusError(
            "is no index that Megatron wrote for token ids",
            where=url,
            hint="Move it away, and set `options: {dtype: …}` to the type of the ids",
        )
    return np.dtype(MEGATRON_TYPES[code])


def _check_width(ids: np.ndarray, file: InputFile) -> None:
    """Raises where ids look like halves of wider ones, whose upper halves are mostly 0."""
    upper, lower = ids[1::2], ids[::2]
    if len(ids) >= ENOUGH and np.mean(upper == 0) > 0.9 and np.mean(lower == 0) < 0.9:
        width = ids.dtype.itemsize
        raise CorpusError(
            f"every second id is 0: the ids have more than the {width} bytes of {ids.dtype}",
            where=file.url,
            hint=f"Set `options: {{dtype: …}}` to the type of its ids, such as int{16 * width}",
        )
