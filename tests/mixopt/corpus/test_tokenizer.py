"""Tokens know their bytes, for byte-level tokenizers exactly."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from mixopt.core.errors import CorpusError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.settings import TokenizerSettings
from mixopt.corpus.tokenizer import Encoder, make_tokenizer

SAMPLE = ["the quick brown fox – jumps über the lazy dog 🙂\n" * 20]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A trained byte-level tokenizer."""
    out = tmp_path_factory.mktemp("tokenizer")
    record = make_tokenizer(TokenizerSettings(vocabulary=280), out, out, SAMPLE, "")
    assert record.vocab_size == 280
    return Encoder.of(record, out)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_of_a_byte_level_tokenizer_are_exact_for_any_text(encoder, text):
    [ids] = encoder.encode([text])
    assert encoder.table[ids].sum() == len(text.encode())
    assert encoder.end_of_text_id not in ids


def test_texts_are_encoded_apart(encoder):
    together = list(encoder.encode(["the fox", "jumps"]))
    assert [i.tolist() for i in together] == [
        next(encoder.encode([t])).tolist() for t in ("the fox", "jumps")
    ]


def test_the_same_sample_trains_the_same_tokenizer(tmp_path):
    hashes = set()
    for name in "ab":
        out = tmp_path / name
        hashes.add(make_tokenizer(TokenizerSettings(vocabulary=280), out, out, SAMPLE, "").hash)
    assert len(hashes) == 1


def word_tokenizer(folder, **special):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", *special.values()])
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def sources(folder, tokenizer="tokenizer: {file: tokenizer.json}"):
    rows = [json.dumps({"text": f"the {n} quick foxes jump Über dogs"}) for n in range(50)]
    (folder / "a.jsonl").write_text("\n".join(rows))
    (folder / "sources.yaml").write_text(f"{tokenizer}\ndomains:\n  a: {{files: a.jsonl}}\n")
    return folder / "sources.yaml"


def test_tokens_without_bytes_of_their_own_count_as_the_corpus_mean(tmp_path):
    word_tokenizer(tmp_path, end="[SEP]")
    corpus = build_corpus(sources(tmp_path), tmp_path / "out")
    assert corpus.manifest.tokenizer.token_bytes == "average"
    everything = np.concatenate([corpus.train("a"), corpus.validation("a")])
    assert corpus.token_bytes[everything].sum() == pytest.approx(corpus.manifest.domains["a"].bytes)
    assert corpus.token_bytes[corpus.end_of_text_id] == 0


def test_a_normalizer_that_changes_the_text_makes_bytes_approximate(tmp_path):
    trained = build_corpus(sources(tmp_path, "tokenizer: {vocabulary: 280}"), tmp_path / "first")
    assert trained.manifest.tokenizer.token_bytes == "exact"
    tokenizer = Tokenizer.from_file(str(trained.tokenizer_path))
    tokenizer.normalizer = normalizers.NFD()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    corpus = build_corpus(sources(tmp_path), tmp_path / "second")
    assert corpus.manifest.tokenizer.token_bytes == "approximate"


def test_a_tokenizer_without_an_end_of_text_is_refused_until_it_is_named(tmp_path):
    word_tokenizer(tmp_path, end="<stop>")
    with pytest.raises(CorpusError, match=r"no end-of-text token .*Set `end_of_text`"):
        build_corpus(sources(tmp_path), tmp_path / "out")
    named = sources(tmp_path, "tokenizer: {file: tokenizer.json, end_of_text: <stop>}")
    assert build_corpus(named, tmp_path / "out").manifest.tokenizer.end_of_text == "<stop>"


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"tokenizer\.json: is not a tokenizer"):
        build_corpus(sources(tmp_path), tmp_path / "out")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CorpusError, match=r"tokenizer\.json: cannot be read"):
        build_corpus(sources(tmp_path), tmp_path / "out")
