"""A corpus small enough to train on in a test, written with numpy and the manifest alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixopt.corpus.manifest import DomainRecord, Manifest, Shard, TokenizerRecord, file_sha256
from mixopt.corpus.shards import Corpus

VOCABULARY = 64


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two small domains, written once."""
    return write_tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision measurements of tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_tiny_corpus(folder: Path, domains: int = 2, tokens: int = 6000) -> Corpus:
    """`domains` domains d0, d1, …, each a noisy cycle of its own stride over the vocabulary."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    sizes = np.full(VOCABULARY, 3.0)
    sizes[0] = 0.0
    np.save(folder / "bytes.npy", sizes)
    records = {}
    for d in range(domains):
        splits = {
            split: _write_shard(folder / f"d{d}.{split}.bin", d, count, seed)
            for split, count, seed in (("train", tokens, 1), ("validation", tokens // 4, 2))
        }
        records[f"d{d}"] = DomainRecord(
            role="train",
            source="tokens",
            files=1,
            train=splits["train"],
            validation=splits["validation"],
            duplicates=0,
            skipped=0,
            first_skipped="",
            token_bytes="exact",
            key="",
            claimed="",
            documents_path="",
        )
    tokenizer = TokenizerRecord(
        path="tokenizer.json",
        bytes_path="bytes.npy",
        hash=file_sha256(folder / "tokenizer.json"),
        key="",
        vocab_size=VOCABULARY,
        end_of_text="<end>",
        end_of_text_id=0,
    )
    Manifest(tokenizer, records, validation=0.2, dtype="uint16").write(folder)
    return Corpus.open(folder)


def _write_shard(path: Path, domain: int, tokens: int, seed: int) -> Shard:
    random = np.random.default_rng([domain, seed])
    noise = random.integers(0, 5, tokens) == 0
    steps = np.where(noise, random.integers(1, VOCABULARY, tokens), 3 + 4 * domain)
    ids = (np.cumsum(steps) % (VOCABULARY - 1) + 1).astype(np.uint16)
    path.write_bytes(ids.tobytes())
    return Shard(path.name, tokens, 1, 3 * tokens, file_sha256(path))
