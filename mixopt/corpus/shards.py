"""A finished corpus, read: memory-mapped token shards per domain. Needs numpy alone."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.core.mixture import Mixture
from mixopt.corpus.manifest import DomainRecord, Manifest, Shard, digest, file_sha256

# A build goes by sizes: of the right size it keeps a file, whatever the file holds.
REMAKE = (
    "Check the disk and its memory; then delete the file and build the corpus again, which makes "
    "it anew, or copy it again from where it is whole"
)


class Corpus:
    """Token shards of named domains. Open one with `Corpus.open`.

    Pickles as its path, so it may be sent to workers that see the same file system.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._maps: dict[str, np.ndarray] = {}  # opened once, however many proxies read them

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """The corpus in the folder `path`; reads the manifest and looks at every file's size.

        Raises:
            CorpusError: there is no finished corpus, or a file is missing, cut or grown.
        """
        folder = Path(path).absolute()
        corpus = cls(folder, Manifest.read(folder))
        for shard in corpus._shards():
            corpus._check_size(shard)
        for name in (corpus.manifest.tokenizer.path, corpus.manifest.tokenizer.bytes_path):
            if not (folder / name).is_file():
                raise _broken(folder / name, "is missing")
        return corpus

    def __reduce__(self) -> tuple[object, ...]:
        return (Corpus.open, (self.path,))

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r}, domains={list(self.domains)}, hash={self.hash[:12]})"

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the training domains, in the order of the sources file."""
        return tuple(n for n, d in self.manifest.domains.items() if d.role == "train")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the domains that are validation only."""
        return tuple(n for n, d in self.manifest.domains.items() if d.role == "target")

    @property
    def validation_domains(self) -> tuple[str, ...]:
        """Names of all domains with validation tokens, targets included."""
        return tuple(n for n, d in self.manifest.domains.items() if d.validation.tokens)

    @property
    def tokens(self) -> dict[str, int]:
        """Training domain → training tokens, end-of-text tokens included."""
        return {name: self.manifest.domains[name].train.tokens for name in self.domains}

    @property
    def stored_bytes(self) -> int:
        """Bytes of all shards on disk."""
        width = np.dtype(self.manifest.dtype).itemsize
        return width * sum(shard.tokens for shard in self._shards())

    @property
    def natural(self) -> Mixture:
        """The natural mixture: training domains by their training tokens."""
        return Mixture.natural(self.tokens)

    @property
    def vocab_size(self) -> int:
        """Largest token id + 1."""
        return self.manifest.tokenizer.vocab_size

    @property
    def end_of_text_id(self) -> int:
        """The id that closes every document."""
        return self.manifest.tokenizer.end_of_text_id

    @property
    def hash(self) -> str:
        """SHA-256 over all that a training can see: equal hashes mean equal tokens."""
        return self.manifest.hash

    @property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return self.manifest.tokenizer.hash

    @property
    def tokenizer_path(self) -> Path:
        """The `tokenizer.json` that made the tokens."""
        return self.path / self.manifest.tokenizer.path

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """Bytes of text that each token stands for, (vocab_size,) float64; end-of-text is 0.

        Exact for byte-level tokenizers (`manifest.tokenizer.token_bytes` says so): the bytes of
        any token window are then the sum over its tokens. Where single tokens have no bytes of
        their own, each counts as the corpus' mean.
        """
        table = np.load(self.path / self.manifest.tokenizer.bytes_path)
        return np.where(np.isnan(table), self.manifest.tokenizer.mean_bytes, table)

    def train(self, domain: str) -> np.ndarray:
        """Training tokens of `domain`, (tokens,) uint16 or uint32, memory-mapped, read-only.

        Raises:
            CorpusError: there is no such training domain.
        """
        return self._map(self._domain(domain, self.domains).train)

    def validation(self, domain: str) -> np.ndarray:
        """Validation tokens of `domain`, (tokens,) uint16 or uint32, memory-mapped, read-only.

        Raises:
            CorpusError: `domain` has no validation tokens.
        """
        return self._map(self._domain(domain, self.validation_domains).validation)

    def verify(self) -> None:
        """Reads every file: compares it with its hash, and its tokens with the vocabulary.

        Raises:
            CorpusError: a file is not the one that was built, or holds ids that no token has.
        """
        tokenizer = self.manifest.tokenizer
        _check_hash(self.tokenizer_path, tokenizer.hash)
        if tokenizer.bytes_hash:  # corpora that older versions built do not say
            _check_hash(self.path / tokenizer.bytes_path, tokenizer.bytes_hash)
        for shard in self._shards():
            self._check_size(shard)
            _check_hash(self.path / shard.path, shard.sha256)
            if shard.tokens:
                self.check_ids(shard, self._map(shard))

    def state(self) -> str:
        """Identity of the files as they lie there: differs once one was written or moved."""
        paths = [self.path / shard.path for shard in self._shards()]
        paths += [self.tokenizer_path, self.path / self.manifest.tokenizer.bytes_path]
        stats = [(str(path), path.stat()) for path in paths]
        return digest([self.hash, [(path, s.st_size, s.st_mtime_ns) for path, s in stats]])

    def check_ids(self, shard: Shard, ids: np.ndarray) -> None:
        """Check token ids that were read from `shard`.

        Raises:
            CorpusError: one lies beyond the vocabulary.
        """
        largest = int(ids.max())
        if largest >= self.vocab_size:
            raise CorpusError(
                f"holds the token id {largest}, but the tokenizer has only {self.vocab_size} ids",
                where=str(self.path / shard.path),
                hint=REMAKE,
            )

    def _shards(self) -> list[Shard]:
        return [s for d in self.manifest.domains.values() for s in d.shards]

    def _domain(self, name: str, known: tuple[str, ...]) -> DomainRecord:
        if name not in known:
            raise CorpusError(
                f"the corpus has no such domain {name!r} here",
                where=str(self.path),
                hint=f"Choose one of {', '.join(known) or 'none'}",
            )
        return self.manifest.domains[name]

    def _map(self, shard: Shard) -> np.ndarray:
        if not shard.tokens:  # an empty file cannot be mapped
            return np.empty(0, dtype=self.manifest.dtype)
        if shard.path not in self._maps:
            tokens = np.memmap(self.path / shard.path, dtype=self.manifest.dtype, mode="r")
            self._maps[shard.path] = tokens
        return self._maps[shard.path]

    def _check_size(self, shard: Shard) -> None:
        path = self.path / shard.path
        expected = shard.tokens * np.dtype(self.manifest.dtype).itemsize
        try:
            size = path.stat().st_size
        except OSError:
            raise _broken(path, "is missing") from None
        if size != expected:
            raise _broken(path, f"has {size:,} bytes, the manifest says {expected:,}")


def _check_hash(path: Path, expected: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as problem:
        raise CorpusError(
            f"cannot be read: {problem.strerror}", where=str(path), hint=REMAKE
        ) from problem
    if found != expected:
        raise CorpusError("was changed: its hash differs", where=str(path), hint=REMAKE)


def _broken(path: Path, what: str) -> CorpusError:
    return CorpusError(
        what, where=str(path), hint="Build the corpus again: it makes the broken part anew"
    )
