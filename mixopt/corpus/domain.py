"""One domain, from its documents to its shards: hashed, split, tokenized, written, in one pass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.corpus.documents import SeenDocuments, contains, document_hash, held_out
from mixopt.corpus.files import InputFile, find_all
from mixopt.corpus.manifest import FORMAT, Bytes, DomainRecord, Role, Shard, digest
from mixopt.corpus.settings import DomainSettings
from mixopt.corpus.sources import Document, OnBroken, Source, find_source, infer_source
from mixopt.corpus.tokenizer import Encoder
from mixopt.io.files import sync_folder

SHARDS = "shards"
RECORD = "domain.json"
CHUNK = 4 << 20  # characters encoded at once: enough for all cores, and a bound on memory


class Progress(Protocol):
    """Called with the progress of a stage, `tokenizer` or `tokens`, of a domain in stored bytes."""

    def __call__(self, stage: str, domain: str, done: int, total: int) -> None:
        """Called often; must be quick."""


@dataclass(frozen=True)
class DomainInput:
    """A domain of the sources file, with its files found.

    Attributes:
        name: of the domain.
        settings: as in the sources file.
        source: streams its documents.
        source_name: registry name of the source.
        state: identity of the input: settings, files, their sizes and states.
        left_out: files that document the others; reported as skipped.
    """

    name: str
    settings: DomainSettings
    source: Source
    source_name: str
    state: str
    left_out: tuple[InputFile, ...] = ()

    @classmethod
    def of(cls, name: str, settings: DomainSettings, base: Path) -> DomainInput:
        """Finds the files.

        Raises:
            CorpusError: there are none, or their format or options are not known.
        """
        found = find_all(settings.files, base)
        files = found.files
        source_name = settings.source or infer_source(files)
        source = find_source(source_name)(files, settings.text, settings.options)
        stamp = [dataclasses.astuple(file) for file in files]
        state = digest([source_name, settings.model_dump(exclude={"files"}), stamp])
        return cls(name, settings, source, source_name, state, tuple(found.left_out))

    @property
    def role(self) -> Role:
        """Trained on, or validation only."""
        return "target" if self.settings.target else "train"

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files as stored."""
        return sum(file.size for file in self.source.files)

    def key(self, tokenizer_hash: str, validation: float) -> str:
        """Identity of the input and of every setting that shapes the shards."""
        share = 1.0 if self.settings.target else validation
        return digest([FORMAT, self.name, self.state, tokenizer_hash, share])

    def documents(self, on_broken: OnBroken) -> Iterator[Document]:
        """All documents of all files; what is broken is raised, or passed to `on_broken`."""
        for file in self.source.files:
            yield from self._of_file(file, on_broken)

    def sample(self, limit: int) -> Iterator[str]:
        """Texts of about `limit` characters, an equal share from the head of each file."""
        share = max(limit // len(self.source.files), 1 << 16)
        taken = 0
        for file in self.source.files:
            end = min(limit, taken + share)
            for document in self._of_file(file, lambda error: None):
                if isinstance(document, str):
                    yield document[: limit - taken]
                    taken += len(document)
                if taken >= end:
                    break

    def _of_file(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        def broken(error: CorpusError) -> None:
            if self.settings.on_error == "stop":
                raise error
            on_broken(error)

        try:
            yield from self.source.documents(file, broken)
        except CorpusError as error:  # the rest of the file cannot be read
            broken(error)


def find_built(folder: Path, name: str, key: str, dtype: str) -> DomainRecord | None:
    """The record of the domain's whole shards under the corpus `folder`, if they are there."""
    for path in sorted((folder / SHARDS / name).glob(f"{key[:16]}-*/{RECORD}")):
        try:
            record = DomainRecord.from_json(json.loads(path.read_bytes()), folder)
            sizes = [(folder / shard.path).stat().st_size for shard in record.shards]
            (folder / record.documents_path).stat()
        except (OSError, ValueError, TypeError, KeyError, CorpusError):
            continue
        width = np.dtype(dtype).itemsize
        if record.key == key and sizes == [shard.tokens * width for shard in record.shards]:
            return record
    return None


def build_domain(
    domain: DomainInput,
    key: str,
    encoder: Encoder,
    claimed: Sequence[np.ndarray],
    validation: float,
    dtype: str,
    out: Path,
    progress: Progress,
) -> DomainRecord:
    """Reads a domain and writes its shards, all or nothing.

    Args:
        domain: what to read.
        key: identity of input and settings, for the folder's name.
        encoder: the corpus' tokenizer.
        claimed: sorted hashes of the documents that earlier domains hold; these are dropped.
        validation: share of the documents held out, unless the domain is a target.
        dtype: of the shards.
        out: the corpus folder.
        progress: called with the progress.

    Raises:
        CorpusError: the domain is empty, or a document is broken and the domain does not skip.
    """
    parent = out / SHARDS / domain.name
    temporary = parent / f".building-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    work = _Work(domain, encoder, claimed, validation, dtype, temporary)
    for file in domain.left_out:
        work.skip(
            CorpusError(
                "documents the files beside it, and is left out",
                where=file.url,
                hint="Name it under `files` if it is to be trained on",
            )
        )
    for document in domain.documents(work.skip):
        work.add(document)
        if work.full:
            work.flush()
            progress("tokens", domain.name, domain.source.bytes_read, domain.stored_bytes)
    work.flush()
    progress("tokens", domain.name, domain.stored_bytes, domain.stored_bytes)
    claim = claim_key(work.seen.sorted(), claimed)
    folder = parent / f"{key[:16]}-{claim[:8]}"
    record = work.finish(key, claim, f"{SHARDS}/{domain.name}/{folder.name}")
    shutil.rmtree(folder, ignore_errors=True)  # there only if its files were found broken
    temporary.rename(folder)
    sync_folder(parent)
    return record


def claim_key(hashes: np.ndarray, claimed: Sequence[np.ndarray]) -> str:
    """Identity of those of `hashes` that are claimed: if it stays, so do the domain's shards."""
    taken = hashes[_any_contains(claimed, hashes)]
    return hashlib.sha256(taken.astype("<u8").tobytes()).hexdigest()


class _Work:
    """A domain on its way: pending documents, counts, and the two open shards."""

    def __init__(
        self,
        domain: DomainInput,
        encoder: Encoder,
        claimed: Sequence[np.ndarray],
        validation: float,
        dtype: str,
        folder: Path,
    ) -> None:
        self._domain, self._encoder, self._claimed = domain, encoder, claimed
        self._validation, self._folder = validation, folder
        self._pending: list[Document] = []
        self._size = 0
        self._duplicates = self._skipped = 0
        self._first_skipped = ""
        self._exact = True
        self._writers = {
            split: _ShardWriter(folder / f"{split}.bin", dtype) for split in ("train", "validation")
        }
        self.seen = SeenDocuments()

    @property
    def full(self) -> bool:
        return self._size >= CHUNK

    def skip(self, error: CorpusError) -> None:
        self._skipped += 1
        self._first_skipped = self._first_skipped or str(error)

    def add(self, document: Document) -> None:
        if not isinstance(document, str):
            self._check_ids(document)
        elif not document or document.isspace():
            self.skip(CorpusError("an empty document", where=self._domain.name))
            return
        self._pending.append(document)
        self._size += max(len(document), 256)  # many short documents cost memory too

    def flush(self) -> None:
        """Drops what was seen before, and tokenizes and writes the rest."""
        hashes = np.array([document_hash(d) for d in self._pending], dtype=np.uint64)
        kept = self.seen.add(hashes) & ~_any_contains(self._claimed, hashes)
        self._duplicates += int(np.count_nonzero(~kept))
        documents = [d for d, keep in zip(self._pending, kept, strict=True) if keep]
        held = held_out(hashes[kept], self._validation)
        if self._domain.settings.target:
            held[:] = True
        self._pending, self._size = [], 0
        encoded = self._encoder.encode([d for d in documents if isinstance(d, str)])
        for document, out in zip(documents, held, strict=True):
            if isinstance(document, str):
                ids, size = next(encoded), len(document.encode())
                self._exact &= bool(self._encoder.table[ids].sum() == size)
            else:
                ids, size = document.astype(np.int64), self._encoder.decode_bytes(document)
            writer = self._writers["validation" if out else "train"]
            writer.write(np.append(ids, self._encoder.end_of_text_id), size)

    def finish(self, key: str, claim: str, path: str) -> DomainRecord:
        """Closes the shards and writes the record beside them, last."""
        train, validation = (w.close(path) for w in self._writers.values())
        self._check_not_empty(train, validation)
        np.save(self._folder / "documents.npy", self.seen.sorted())
        record = DomainRecord(
            role=self._domain.role,
            source=self._domain.source_name,
            files=len(self._domain.source.files),
            train=train,
            validation=validation,
            duplicates=self._duplicates,
            skipped=self._skipped,
            first_skipped=self._first_skipped,
            token_bytes=self._token_bytes(),
            key=key,
            claimed=claim,
            documents_path=f"{path}/documents.npy",
        )
        (self._folder / RECORD).write_text(json.dumps(dataclasses.asdict(record), indent=2))
        for file in self._folder.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        return record

    def _token_bytes(self) -> Bytes:
        if np.isnan(self._encoder.table).any():
            return "average"
        return "exact" if self._exact else "approximate"

    def _check_ids(self, ids: np.ndarray) -> None:
        size = len(self._encoder.table)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise CorpusError(
                f"token {int(ids.max())} is not below the vocabulary of {size}",
                where=self._domain.name,
                hint="Give the tokenizer that made the tokens, and the dtype they were written in",
            )

    def _check_not_empty(self, train: Shard, validation: Shard) -> None:
        wanted = validation if self._domain.settings.target else train
        if wanted.documents:
            return
        files = self._domain.source.files
        where = f"{self._domain.name}: {files[0].url}" + (" …" if len(files) > 1 else "")
        if not validation.documents and not self._duplicates:
            because = f"; {self._skipped} were skipped, the first: {self._first_skipped}"
            raise CorpusError(
                "the domain holds no documents" + (because if self._skipped else ""),
                where=where,
                hint="Give it files with text, or remove it",
            )
        raise CorpusError(
            f"nothing is left to use: of its documents {self._duplicates} are duplicates of "
            f"earlier ones and {validation.documents} are held out for validation",
            where=where,
            hint="Give the domain more text, remove it, or hold out a smaller share",
        )


class _ShardWriter:
    """Appends token ids to a file, counting and hashing as it goes."""

    def __init__(self, path: Path, dtype: str) -> None:
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115  closed by `close`
        self._name, self._dtype = path.name, np.dtype(dtype).newbyteorder("<")
        self._hash = hashlib.sha256()
        self._tokens = self._documents = self._bytes = 0

    def write(self, ids: np.ndarray, size: int) -> None:
        """Appends one document: its ids with the end-of-text id, and its bytes of text."""
        contents = ids.astype(self._dtype).tobytes()
        self._file.write(contents)
        self._hash.update(contents)
        self._tokens += len(ids)
        self._documents += 1
        self._bytes += size

    def close(self, folder: str) -> Shard:
        """The finished shard, with its path under the corpus' relative `folder`."""
        self._file.close()
        path = f"{folder}/{self._name}"
        return Shard(path, self._tokens, self._documents, self._bytes, self._hash.hexdigest())


def _any_contains(claimed: Sequence[np.ndarray], hashes: np.ndarray) -> np.ndarray:
    found = np.zeros(len(hashes), dtype=bool)
    for ordered in claimed:
        found |= contains(ordered, hashes)
    return found
