"""The corpus' tokenizer: trained or given, kept beside the shards, with the bytes of each token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mixopt.core.errors import CorpusError
from mixopt.corpus.manifest import TokenizerRecord, digest, file_sha256
from mixopt.corpus.settings import TokenizerSettings
from mixopt.io.files import sync_folder

END_OF_TEXT = "<|endoftext|>"
USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")
FOLDER = "tokenizer"


def settings_key(settings: TokenizerSettings, base: Path) -> str:
    """Identity of the tokenizer's settings: what it is made from, not what came out.

    Raises:
        CorpusError: a given file cannot be read.
    """
    if settings.file is None:
        return digest(["trained", settings.vocabulary, settings.sample_megabytes])
    try:
        return digest(["given", file_sha256(base / settings.file), settings.end_of_text])
    except OSError as error:
        raise CorpusError(
            f"cannot be read: {error.strerror}", where=str(base / settings.file)
        ) from None


def make_tokenizer(
    settings: TokenizerSettings, base: Path, out: Path, sample: Iterable[str], inputs: str
) -> TokenizerRecord:
    """Trains or copies the tokenizer into the corpus folder `out`, or finds it there.

    Args:
        settings: of the sources file.
        base: folder that `settings.file` is relative to.
        out: the corpus folder.
        sample: texts to train on; not looked at unless needed.
        inputs: identity of what `sample` is drawn from.

    Raises:
        CorpusError: a given file is no tokenizer, or has no end-of-text token.
    """
    key = settings_key(settings, base)
    folder = out / FOLDER / digest([key, inputs if settings.file is None else ""])[:16]
    if not (folder / "tokenizer.json").is_file():
        temporary = folder.with_name(f".building-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if settings.file is None:
            trained = _train(settings.vocabulary, sample).to_str(pretty=True)
            (temporary / "tokenizer.json").write_text(trained, encoding="utf-8")
        else:
            shutil.copyfile(base / settings.file, temporary / "tokenizer.json")
        tokenizer = _load(temporary / "tokenizer.json", settings.file)
        end = _end_of_text(tokenizer, settings, base)
        np.save(temporary / "token_bytes.npy", token_bytes(tokenizer, end))
        temporary.rename(folder)
        sync_folder(folder.parent)
    tokenizer = _load(folder / "tokenizer.json", settings.file)
    end = _end_of_text(tokenizer, settings, base)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return TokenizerRecord(
        path=f"{FOLDER}/{folder.name}/tokenizer.json",
        bytes_path=f"{FOLDER}/{folder.name}/token_bytes.npy",
        hash=file_sha256(folder / "tokenizer.json"),
        bytes_hash=file_sha256(folder / "token_bytes.npy"),
        key=key,
        vocab_size=max(vocabulary.values()) + 1,
        end_of_text=end,
        end_of_text_id=vocabulary[end],
    )


def token_bytes(tokenizer: Tokenizer, end_of_text: str) -> np.ndarray:
    """Bytes of text that each token stands for, (vocab_size,) float64; NaN where undefined.

    In a byte-level vocabulary every character of a token's name is one byte (Radford et al. 2019,
    GPT-2's `bytes_to_unicode`), and special tokens stand for none. Elsewhere only end-of-text is
    known to stand for none: an unknown-word token, special too, does stand for text.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = np.full(max(vocabulary.values()) + 1, np.nan)
    if _is_byte_level(json.loads(tokenizer.to_str())):
        table[:] = 0  # ids that no token has
        for token, index in vocabulary.items():
            table[index] = len(token)
        for index, added in tokenizer.get_added_tokens_decoder().items():
            table[index] = 0 if added.special else len(added.content.encode())
    table[vocabulary[end_of_text]] = 0
    return table


def _is_byte_level(parts: dict[str, Any]) -> bool:
    decoder = parts.get("decoder") or {}
    steps = [decoder, *decoder.get("decoders", [])]
    return any(step.get("type") == "ByteLevel" for step in steps)


def _train(vocabulary: int, sample: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(END_OF_TEXT, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def _load(path: Path, given: Path | None = None) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CorpusError(
            f"is not a tokenizer: {error}",
            where=str(given or path),
            hint="Give a `tokenizer.json` of the tokenizers library",
        ) from error


def _end_of_text(tokenizer: Tokenizer, settings: TokenizerSettings, base: Path) -> str:
    names = (settings.end_of_text,) if settings.end_of_text else USUAL_ENDS
    for name in names:
        if tokenizer.token_to_id(name) is not None:
            return name
    raise CorpusError(
        f"the tokenizer has no end-of-text token {' or '.join(names)}",
        where=str(base / (settings.file or "")),
        hint="Set `end_of_text` under `tokenizer:` to the token that closes a document",
    )


@dataclass(frozen=True)
class Encoder:
    """Texts to token ids with documents closed, ready to write."""

    tokenizer: Tokenizer
    end_of_text_id: int
    table: np.ndarray  # (vocab_size,) bytes per token

    @classmethod
    def of(cls, record: TokenizerRecord, out: Path) -> Encoder:
        """The encoder of the tokenizer that `record` describes in the corpus folder `out`."""
        tokenizer = _load(out / record.path)
        # A text that holds "<|endoftext|>" is text: it must not end a document.
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, record.end_of_text_id, np.load(out / record.bytes_path))

    def encode(self, texts: list[str]) -> Iterator[np.ndarray]:
        """Token ids of each text, (n,) int64, without an end-of-text token."""
        batch = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for encoding in batch:
            yield np.array(encoding.ids, dtype=np.int64)

    def decode_bytes(self, ids: np.ndarray) -> int:
        """UTF-8 bytes of the text that `ids` stand for."""
        if not np.isnan(self.table).any():
            return int(self.table[ids].sum())
        return len(self.tokenizer.decode(ids.tolist()).encode())
