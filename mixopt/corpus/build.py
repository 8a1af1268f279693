"""A corpus from a sources file: what changed is built anew, and the manifest is written last.

A folder at any moment holds the old corpus, the new one, or none. Shards lie in folders named for
their input, each renamed into place when whole; `manifest.json` names those that count. A build
that was killed leaves folders that the next one uses or removes.

Of equal documents one is kept: a target's before a training domain's, so that no target is ever
trained on; then the domain's named first. A domain is built anew when its input changed, or when
documents that it shares with an earlier domain came or went there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import mixopt
from mixopt.core.errors import CorpusError
from mixopt.corpus.domain import SHARDS, DomainInput, Progress, build_domain, claim_key, find_built
from mixopt.corpus.manifest import DomainRecord, Manifest, TokenizerRecord, digest
from mixopt.corpus.settings import SourcesFile, load_sources
from mixopt.corpus.shards import Corpus
from mixopt.corpus.tokenizer import FOLDER, Encoder, make_tokenizer, settings_key
from mixopt.io import files, locks

LOCK = ".build.lock"


def build_corpus(sources: Path, out: Path, progress: Progress | None = None) -> Corpus:
    """Builds the corpus that `sources` describes in the folder `out`, as far as it is not built.

    Args:
        sources: the sources file (YAML, see `mixopt.corpus.settings`).
        out: folder of the corpus; made if it is not there.
        progress: called with the progress.

    Raises:
        CorpusError: the sources file or a source is not valid, or another build holds `out`.
        FileError: the disk is full or cannot be written; what was built whole is kept.
    """
    sources, out = Path(sources).absolute(), Path(out).absolute()
    settings = load_sources(sources)
    with locks.hold(
        out / LOCK,
        "the corpus",
        error=CorpusError,
        hint="Wait for the other build, or build into another folder",
    ):
        return _Build(settings, sources.parent, out, progress or _silent).run()


class _Build:
    """One run over a sources file."""

    def __init__(self, settings: SourcesFile, base: Path, out: Path, progress: Progress) -> None:
        self._settings, self._base, self._out, self._progress = settings, base, out, progress
        self._domains = [DomainInput.of(n, d, base) for n, d in settings.domains.items()]
        self._check_tokenized()

    def run(self) -> Corpus:
        self._check_links()
        for folder in [self._out / FOLDER, *self._out.glob(f"{SHARDS}/*")]:
            _remove_begun(folder)  # of killed builds: they may fill the disk
        before = self._before()
        tokenizer = self._tokenizer(before)
        dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        keys = {d.name: d.key(tokenizer.hash, self._settings.validation) for d in self._domains}
        if before and self._is_current(before, tokenizer, keys):
            return Corpus.open(self._out)
        records = self._build_domains(tokenizer, dtype, keys)
        self._check_unchanged()
        manifest = Manifest(
            tokenizer=_with_bytes(tokenizer, list(records.values()), self._out),
            domains=records,
            validation=self._settings.validation,
            dtype="uint16" if dtype == "uint16" else "uint32",
            mixopt=mixopt.__version__,
        ).write(self._out)
        self._clean(manifest)
        return Corpus.open(self._out)

    def _before(self) -> Manifest | None:
        """The manifest of a corpus that is here and whole enough to keep its tokenizer."""
        try:
            manifest = Manifest.read(self._out)
        except CorpusError:
            return None
        named = (manifest.tokenizer.path, manifest.tokenizer.bytes_path)
        return manifest if all((self._out / name).is_file() for name in named) else None

    def _tokenizer(self, before: Manifest | None) -> TokenizerRecord:
        """The one that is there if its settings are the same, whatever the text does."""
        settings = self._settings.tokenizer
        if before and before.tokenizer.key == settings_key(settings, self._base):
            return before.tokenizer
        inputs = digest([domain.state for domain in self._domains])
        with _building(self._out / FOLDER):
            return make_tokenizer(settings, self._base, self._out, self._sample(), inputs)

    def _sample(self) -> Iterator[str]:
        """Text of each training domain, for the tokenizer."""
        limit = int(self._settings.tokenizer.sample_megabytes * 1e6)
        for domain in self._domains:
            if domain.settings.target or domain.source.tokenized:
                continue
            taken = 0
            for text in domain.sample(limit):
                yield text
                taken += len(text)
                self._progress("tokenizer", domain.name, min(taken, limit), limit)

    def _is_current(
        self, before: Manifest, tokenizer: TokenizerRecord, keys: dict[str, str]
    ) -> bool:
        if before.tokenizer.hash != tokenizer.hash:
            return False
        if [(n, r.key) for n, r in before.domains.items()] != list(keys.items()):
            return False
        try:
            Corpus.open(self._out)
        except CorpusError:
            return False
        return before.validation == self._settings.validation

    def _build_domains(
        self, tokenizer: TokenizerRecord, dtype: str, keys: dict[str, str]
    ) -> dict[str, DomainRecord]:
        encoder = Encoder.of(tokenizer, self._out)
        records: dict[str, DomainRecord] = {}
        claimed: list[np.ndarray] = []
        for domain in sorted(self._domains, key=lambda d: not d.settings.target):
            key = keys[domain.name]
            record = find_built(self._out, domain.name, key, dtype)
            if record is None or record.claimed != claim_key(self._hashes(record), claimed):
                with _building(self._out / SHARDS / domain.name):
                    record = build_domain(
                        domain,
                        key,
                        encoder,
                        claimed,
                        self._settings.validation,
                        dtype,
                        self._out,
                        self._progress,
                    )
            records[domain.name] = record
            claimed.append(self._hashes(record))
        return {name: records[name] for name in keys}

    def _hashes(self, record: DomainRecord) -> np.ndarray:
        hashes: np.ndarray = np.load(self._out / record.documents_path, mmap_mode="r")
        return hashes

    def _check_tokenized(self) -> None:
        tokenized = [d.name for d in self._domains if d.source.tokenized]
        if tokenized and self._settings.tokenizer.file is None:
            raise CorpusError(
                "is tokenized already, but the corpus does not say by which tokenizer",
                where=tokenized[0],
                hint="Set `tokenizer: {file: tokenizer.json}` to the one that made the tokens",
            )

    def _check_unchanged(self) -> None:
        for domain in self._domains:
            if DomainInput.of(domain.name, domain.settings, self._base).state != domain.state:
                raise CorpusError(
                    "its files changed while they were read",
                    where=domain.name,
                    hint="Build again when they are complete",
                )

    def _check_links(self) -> None:
        """Refuses folders that are links: what lies behind one is not the corpus' to remove."""
        parts = [self._out / SHARDS, self._out / FOLDER, *self._out.glob(f"{SHARDS}/*")]
        for path in parts:
            if path.is_symlink():
                raise CorpusError(
                    "is a symbolic link, and a build removes old files from the corpus' folders",
                    where=str(path),
                    hint="Remove the link; to use another disk, make the whole corpus folder a "
                    "link, or build there",
                )

    def _clean(self, manifest: Manifest) -> None:
        """Removes what the manifest does not name: old shards, and those of killed builds."""
        kept = {Path(record.train.path).parent for record in manifest.domains.values()}
        kept.add(Path(manifest.tokenizer.path).parent)
        for folder in [*self._out.glob(f"{SHARDS}/*/*"), *self._out.glob(f"{FOLDER}/*")]:
            if folder.relative_to(self._out) not in kept:
                shutil.rmtree(folder, ignore_errors=True)  # it leaves links alone
        for folder in self._out.glob(f"{SHARDS}/*"):
            if not any(folder.iterdir()):
                folder.rmdir()


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[None]:
    """While the block builds in `folder`: a failure leaves nothing begun, and the disk's is named.

    Raises:
        FileError: the disk is full or cannot be written.
    """
    with files.writing(folder):
        try:
            yield
        except BaseException:
            _remove_begun(folder)
            raise


def _remove_begun(folder: Path) -> None:
    for begun in folder.glob(".building-*"):
        shutil.rmtree(begun, ignore_errors=True)


def _with_bytes(
    tokenizer: TokenizerRecord, records: list[DomainRecord], out: Path
) -> TokenizerRecord:
    """The tokenizer with what the corpus says about the bytes of its tokens."""
    text = sum(record.bytes for record in records)
    tokens = sum(record.tokens - record.documents for record in records)
    found = {record.token_bytes for record in records}
    whole = "average" if "average" in found else "approximate" if len(found) > 1 else found.pop()
    return dataclasses.replace(tokenizer, token_bytes=whole, mean_bytes=text / tokens)


def _silent(stage: str, domain: str, done: int, total: int) -> None:
    """No progress shown."""
