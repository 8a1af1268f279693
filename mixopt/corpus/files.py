"""Input files anywhere fsspec reaches: found by glob, fingerprinted, opened, uncompressed."""

from __future__ import annotations

import glob
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import zstandard

from mixopt.core.errors import CorpusError

BLOCK = 1 << 18  # bytes read at once
COMPRESSED = (".gz", ".zst")
MARKERS = frozenset({"_SUCCESS", "_metadata", "_common_metadata", "_temporary", "__MACOSX"})
ABOUT = frozenset(
    {*("readme", "license", "licence", "copying", "notice", "citation", "changelog", "datasheet")}
)
ABOUT_ENDINGS = frozenset({"", "md", "txt", "rst", "cff", "html"})
WILD = re.compile(r"[*?\[]")
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


@dataclass(frozen=True)
class Found:
    """What patterns name: the files to read, and the documentation beside them, left out."""

    files: list[InputFile]
    left_out: list[InputFile]


def find(patterns: list[str], base: Path) -> list[InputFile]:
    """The files to read of `find_all`."""
    return find_all(patterns, base).files


def find_all(patterns: list[str], base: Path) -> Found:
    """All files that the patterns name, each once, sorted by URL within a pattern.

    Hidden files and writers' markers below a folder or matched by a wildcard are passed over. So is
    what documents a folder (README, LICENSE, …) where there are other files: a dataset's card is no
    text of it.

    Args:
        patterns: paths, globs, folders (all files below) or fsspec URLs.
        base: folder that relative paths start from.

    Raises:
        CorpusError: a pattern matches nothing.
    """
    found: dict[str, InputFile] = {}
    left_out: dict[str, InputFile] = {}
    for pattern in patterns:
        files, root = _match(pattern, base)
        if not files:
            raise CorpusError(
                "no file matches",
                where=pattern,
                hint=f"Correct the path; relative ones start from {base}",
            )
        about = [file for file in files if root and _is_documentation(file.url, root)]
        if len(about) == len(files):
            about = []
        left_out.update((file.url, file) for file in about)
        found.update((file.url, file) for file in files if file not in about)
    return Found(list(found.values()), [f for url, f in left_out.items() if url not in found])


def _is_housekeeping(path: str, folder: str) -> bool:
    """Whether a file below `folder` is hidden, or marks what a writer of data has done."""
    parts = PurePosixPath(path.removeprefix(folder)).parts
    return any(part.startswith(".") or part in MARKERS for part in parts)


def _is_documentation(url: str, folder: str) -> bool:
    """Whether a file directly in `folder` tells of what is in it."""
    path = PurePosixPath(url)
    first, _, ending = path.name.lower().partition(".")
    return url.endswith(f"{folder}/{path.name}") and first in ABOUT and ending in ABOUT_ENDINGS


def _locate(url: str) -> tuple[Any, str]:
    """The file system and the path in it; a local path is taken as it is written."""
    if "://" in url:
        system, path = fsspec.core.url_to_fs(url)
        return system, path
    return fsspec.filesystem("file"), url


def _match(pattern: str, base: Path) -> tuple[list[InputFile], str]:
    """The files that a pattern names, and the folder that it looks through; "" for one file."""
    literal, wild, root = _spellings(pattern, base)
    try:
        system, path = _locate(literal)
        if system.isdir(path):
            root = path.rstrip("/")
            paths = [p for p in system.find(path) if not _is_housekeeping(p, root)]
        elif system.isfile(path):  # its name may hold what a glob would use
            root, paths = "", [path]
        else:
            paths = [p for p in system.glob(_locate(wild)[1]) if system.isfile(p)]
            if not _is_housekeeping(path, root):  # asked for by name
                paths = [p for p in paths if not _is_housekeeping(p, root)]
        return [_describe(system, p) for p in sorted(paths)], root
    except (OSError, ValueError, ImportError) as error:
        raise CorpusError(f"cannot be listed: {error}", where=literal) from error


def _spellings(pattern: str, base: Path) -> tuple[str, str, str]:
    """A pattern as the name of a file, as a glob (in it `base` is none), and its fixed folder."""
    if "://" in pattern:
        return pattern, pattern, _fixed(PurePosixPath(_locate(pattern)[1]))
    path = Path(pattern).expanduser()
    root = str(base / _fixed(PurePosixPath(path)))
    return str(base / path), str(Path(glob.escape(str(base))) / path), root


def _fixed(pattern: PurePosixPath) -> str:
    """The folders of `pattern` before its first wildcard."""
    fixed = itertools.takewhile(lambda part: not WILD.search(part), pattern.parts[:-1])
    return str(PurePosixPath(*fixed))


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
            f"cannot be read to its end: {error}", where=url, hint="Fetch or write the file again"
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
