"""What a corpus says about itself: `manifest.json`, written last, so that half a corpus has none.

Standard library alone: the reading half of the corpus imports it on machines with only torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, get_args

from mixopt.core.errors import CorpusError
from mixopt.io import files

FORMAT = 1  # raised when an older reader could misread what a newer builder writes
MANIFEST = "manifest.json"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a domain may be called, in a sources file and in a manifest: names become file names."""

Role = Literal["train", "target"]
Dtype = Literal["uint16", "uint32"]
Bytes = Literal["exact", "approximate", "average"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One memory-mapped file of token ids.

    Attributes:
        path: relative to the corpus folder.
        tokens: ids in the file, end-of-text tokens included.
        documents: documents in the file, each closed by an end-of-text token.
        bytes: UTF-8 bytes of their text.
        sha256: of the file.
    """

    path: str
    tokens: int
    documents: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """What became of one domain's documents.

    Attributes:
        role: `train`, or `target` for a domain that is validation only.
        source: registry name of the source, or `package.module:Name`.
        files: input files read.
        duplicates: documents dropped because an equal one was kept, here or in an earlier domain.
        skipped: broken or empty documents left out.
        token_bytes: whether the tokens' bytes add up to the text's bytes (see `TokenizerRecord`).
        key: identity of the input and of every setting that shapes the shards.
        claimed: identity of the documents that earlier domains held already.
        documents_path: sorted 64-bit hashes of all distinct documents, relative to the corpus.
        first_skipped: why the first of the skipped documents was.
    """

    role: Role
    source: str
    files: int
    train: Shard
    validation: Shard
    duplicates: int
    skipped: int
    token_bytes: Bytes
    key: str
    claimed: str
    documents_path: str
    first_skipped: str = ""

    @property
    def documents(self) -> int:
        """Documents kept."""
        return self.train.documents + self.validation.documents

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the documents kept."""
        return self.train.bytes + self.validation.bytes

    @property
    def tokens(self) -> int:
        """Tokens of the documents kept, end-of-text tokens included."""
        return self.train.tokens + self.validation.tokens

    @property
    def shards(self) -> tuple[Shard, Shard]:
        """Training and validation."""
        return self.train, self.validation

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of the domain, relative to the corpus folder."""
        return self.train.path, self.validation.path, self.documents_path

    @classmethod
    def from_json(cls, values: dict[str, Any], folder: Path) -> DomainRecord:
        """The record that `dataclasses.asdict` described, of the corpus in `folder`.

        Raises:
            CorpusError: it names a role or a path that no build writes.
            KeyError: a key is missing.
            TypeError: a key is missing or unknown.
        """
        shards = {split: Shard(**values[split]) for split in ("train", "validation")}
        record = cls(**{**values, **shards})
        _check_choice("role", record.role, get_args(Role), folder)
        for path in record.paths:
            check_inside(folder, path)
        return record


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """The tokenizer that all shards of a corpus share.

    Attributes:
        path: `tokenizer.json`, relative to the corpus folder.
        bytes_path: `.npy` of (vocab_size,) float64: bytes per token, NaN where undefined.
        hash: SHA-256 of `tokenizer.json`.
        key: identity of the settings that it was made from.
        vocab_size: largest id + 1.
        end_of_text: the token that closes every document.
        end_of_text_id: its id.
        token_bytes: `exact` if the bytes of the tokens were found to add up to the bytes of every
            piece of text; `approximate` if not (a normalizer changes the text, say); `average` if
            single tokens have no bytes and each counts as the corpus' mean.
        mean_bytes: bytes per token of the corpus, end-of-text tokens not counted.
        bytes_hash: SHA-256 of the file at `bytes_path`; empty in corpora of older versions.
    """

    path: str
    bytes_path: str
    hash: str
    key: str
    vocab_size: int
    end_of_text: str
    end_of_text_id: int
    token_bytes: Bytes = "exact"
    mean_bytes: float = 1.0
    bytes_hash: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole corpus on one page; `validation` is the share of documents held out."""

    tokenizer: TokenizerRecord
    domains: dict[str, DomainRecord]
    validation: float
    dtype: Dtype
    mixopt: str = ""
    format: int = FORMAT
    hash: str = field(default="", compare=False)

    def content_hash(self) -> str:
        """SHA-256 over what a training can see: tokenizer, domain names, roles and shards."""
        parts = [
            [name, record.role, record.train.sha256, record.validation.sha256]
            for name, record in self.domains.items()
        ]
        return digest([self.format, self.dtype, self.tokenizer.hash, parts])

    def write(self, folder: Path) -> Manifest:
        """Writes `manifest.json` as a whole or not at all, and returns it with its hash."""
        signed = dataclasses.replace(self, hash=self.content_hash())
        text = json.dumps(dataclasses.asdict(signed), indent=2, ensure_ascii=False)
        files.write_bytes(folder / MANIFEST, (text + "\n").encode())
        return signed

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the corpus in `folder`.

        Raises:
            CorpusError: there is none, it is not one that this version wrote, or it names what
                no build writes: a domain outside the naming rule, a file outside `folder`.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise CorpusError(
                "no finished corpus is here",
                where=str(path),
                hint="Run `mixopt corpus build`; an interrupted build goes on where it stopped",
            ) from None
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"cannot be read: {error}", where=str(path), hint="Build the corpus again"
            ) from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise CorpusError(
                f"is not a manifest of format {FORMAT}",
                where=str(path),
                hint="Build the corpus again with this version of mixopt",
            )
        try:
            domains = {
                _checked_name(name, folder): DomainRecord.from_json(record, folder)
                for name, record in values.pop("domains").items()
            }
            tokenizer = TokenizerRecord(**values.pop("tokenizer"))
            for file in (tokenizer.path, tokenizer.bytes_path):
                check_inside(folder, file)
            manifest = cls(tokenizer=tokenizer, domains=domains, **values)
            _check_choice("dtype", manifest.dtype, get_args(Dtype), folder)
            honest = manifest.hash == manifest.content_hash()
        except (KeyError, TypeError, AttributeError) as error:
            raise CorpusError(
                f"is not complete: {error}", where=str(path), hint="Build the corpus again"
            ) from error
        if not honest:
            raise CorpusError(
                "was changed after it was written: its hash does not fit its contents",
                where=str(path),
                hint="Build the corpus again",
            )
        return manifest


def check_inside(folder: Path, path: str) -> None:
    """Checks that `path`, read from a manifest, names a file of the corpus in `folder`.

    A corpus may come from elsewhere, and promotion copies files that it names.

    Raises:
        CorpusError: `path` is absolute, climbs by `..`, or leads out through a link.
    """
    parts = PureWindowsPath(path)  # knows both slashes, and drives
    if (
        parts.anchor
        or ".." in parts.parts
        or not (folder / path).resolve().is_relative_to(folder.resolve())
    ):
        raise _foreign(f"names the file {path!r}, which is not inside the corpus folder", folder)


def _checked_name(name: str, folder: Path) -> str:
    if not NAME.fullmatch(name):
        raise _foreign(
            f"names the domain {name!r}; names hold only letters, digits and . _ -", folder
        )
    return name


def _check_choice(key: str, value: object, known: tuple[str, ...], folder: Path) -> None:
    if value not in known:
        raise _foreign(f"has the {key} {value!r}, not one of {', '.join(known)}", folder)


def _foreign(what: str, folder: Path) -> CorpusError:
    return CorpusError(
        what,
        where=str(folder / MANIFEST),
        hint="No build of mixopt writes this. Do not use the folder; build the corpus anew",
    )


def digest(values: object) -> str:
    """SHA-256 of JSON-able values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
