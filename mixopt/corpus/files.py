"""Input files anywhere fsspec reaches: found by glob, fingerprinted, opened, uncompressed."""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import zstandard

from mixopt.errors import CorpusError

BLOCK = 1 << 18  # bytes read at once
COMPRESSED = (".gz", ".zst")
MARKERS = frozenset({"_SUCCESS", "_metadata", "_common_metadata", "_temporary", "__MACOSX"})
LARGEST_WINDOW = 1 << 31  # bytes; what `zstd --ultra --long=31` writes, the format's most


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of a source.

    Attributes:
        url: a local path, or an fsspec URL.
        size: bytes as stored (compressed).
        state: changes when the contents do: modification time, or what the file system knows.
    """

    url: str
    size: int
    state: str

    @property
    def ending(self) -> str:
        """The file's ending without that of its compression: `a.jsonl.zst` → `.jsonl`."""
        name = PurePosixPath(self.url)
        return PurePosixPath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


def find(patterns: list[str], base: Path) -> list[InputFile]:
    """All files that the patterns name, each once, sorted by URL within a pattern.

    Args:
        patterns: paths, globs, folders (all files below but hidden ones and markers) or
            fsspec URLs.
        base: folder that relative paths start from.

    Raises:
        CorpusError: a pattern matches nothing.
    """
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        files = _match(*_spellings(pattern, base))
        if not files:
            raise CorpusError(
                "no file matches",
                where=pattern,
                mend=f"Correct the path; relative ones start from {base}",
            )
        found.update((file.url, file) for file in files)
    return list(found.values())


def _is_housekeeping(path: str, folder: str) -> bool:
    """Whether a file below `folder` is hidden, or marks what a writer of data has done."""
    parts = PurePosixPath(path.removeprefix(folder)).parts
    return any(part.startswith(".") or part in MARKERS for part in parts)


def _locate(url: str) -> tuple[Any, str]:
    """The file system and the path in it; a local path is taken as it is written."""
    if "://" in url:
        system, path = fsspec.core.url_to_fs(url)
        return system, path
    return fsspec.filesystem("file"), url


def _spellings(pattern: str, base: Path) -> tuple[str, str]:
    """A pattern as the name of a file, and as a glob: in it `base` is no pattern."""
    if "://" in pattern:
        return pattern, pattern
    path = Path(pattern).expanduser()
    return str(base / path), str(Path(glob.escape(str(base))) / path)


def _match(literal: str, wild: str) -> list[InputFile]:
    try:
        system, path = _locate(literal)
        if system.isdir(path):
            paths = [p for p in system.find(path) if not _is_housekeeping(p, path)]
        elif system.isfile(path):  # its name may hold what a glob would use
            paths = [path]
        else:
            paths = [p for p in system.glob(_locate(wild)[1]) if system.isfile(p)]
        return [_describe(system, p) for p in sorted(paths)]
    except (OSError, ValueError, ImportError) as error:
        raise CorpusError(f"cannot be listed: {error}", where=literal) from error


def _describe(system: Any, path: str) -> InputFile:
    if "file" in system.protocol:
        status = os.stat(path)
        return InputFile(path, status.st_size, str(status.st_mtime_ns))
    return InputFile(system.unstrip_protocol(path), system.size(path) or 0, system.ukey(path))


class CountingFile(io.RawIOBase):
    """A raw file that counts the bytes read from it, for progress."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """Whether the file below is."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves in the file below."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Position in the file below."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Reads up to the size of `buffer`."""
        block = self._file.read(len(buffer))
        buffer[: len(block)] = block
        self.count += len(block)
        return len(block)

    def close(self) -> None:
        """Closes the file below as well."""
        if not self.closed:
            self._file.close()
        super().close()


def exists(url: str) -> bool:
    """Whether there is a file at `url`."""
    system, path = _locate(url)
    return bool(system.isfile(path))


def open_counting(url: str) -> CountingFile:
    """The stored bytes of a file.

    Raises:
        CorpusError: it cannot be opened.
    """
    try:
        system, path = _locate(url)
        return CountingFile(system.open(path, "rb"))
    except OSError as error:
        raise CorpusError(f"cannot be opened: {error}", where=url) from error


def blocks(raw: CountingFile, url: str) -> Iterator[bytes]:
    """The file's contents, uncompressed by its ending, block by block.

    Raises:
        CorpusError: it cannot be read, or a compressed file is cut or broken.
    """
    try:
        if url.endswith(".zst"):
            yield from _zstandard_blocks(raw)
        elif url.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as file:
                while block := file.read(BLOCK):
                    yield block
        else:
            while block := raw.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise CorpusError(
            f"cannot be read to its end: {error}", where=url, mend="Fetch or write the file again"
        ) from error


def _zstandard_blocks(raw: CountingFile) -> Iterator[bytes]:
    """Uncompresses frame by frame; the library's own reader takes a cut file for a whole one."""
    frame, inside = _zstandard_frame(), False
    while block := raw.read(BLOCK):
        while block:
            inside = True
            if contents := frame.decompress(block):
                yield contents
            block = b""
            if frame.eof:
                block, inside = frame.unused_data, False
                frame = _zstandard_frame()
    if inside:
        raise EOFError("the compressed file ends in the middle")


def _zstandard_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()


def lines(raw: CountingFile, url: str) -> Iterator[bytes]:
    """The file's lines, without their ends."""
    begun: list[bytes] = []  # pieces of a line longer than a block: joined once
    for block in blocks(raw, url):
        first, *others = block.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    if last := b"".join(begun):
        yield last
