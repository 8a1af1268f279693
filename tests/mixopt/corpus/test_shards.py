"""A corpus is read with numpy alone, and says so when it is not what was built."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mixopt.core.errors import CorpusError
from mixopt.core.mixture import Mixture
from mixopt.corpus.batches import Batches, CohortBatches
from mixopt.corpus.manifest import Manifest, digest, file_sha256
from mixopt.corpus.shards import Corpus


@pytest.fixture
def copy(text_corpus, tmp_path):
    """A corpus of its own to damage."""
    shutil.copytree(text_corpus.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_tells_what_it_holds(text_corpus):
    assert text_corpus.domains == ("law", "code", "prose")
    assert text_corpus.targets == ("notes",)
    assert text_corpus.validation_domains == ("law", "code", "prose", "notes")
    assert text_corpus.tokens == {d: len(text_corpus.train(d)) for d in text_corpus.domains}
    total = sum(text_corpus.tokens.values())
    assert text_corpus.natural["law"] == pytest.approx(text_corpus.tokens["law"] / total)
    assert text_corpus.vocab_size == 320
    assert len(text_corpus.hash) == len(text_corpus.tokenizer_hash) == 64
    assert text_corpus.tokenizer_path.is_file()


def test_tokens_are_mapped_not_read_and_cannot_be_written(text_corpus):
    tokens = text_corpus.train("law")
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_every_document_is_closed_by_the_end_of_text(text_corpus):
    for name, record in text_corpus.manifest.domains.items():
        validation = text_corpus.validation(name)
        assert validation[-1] == text_corpus.end_of_text_id
        assert (validation == text_corpus.end_of_text_id).sum() == record.validation.documents


def test_a_target_is_not_a_training_domain(text_corpus):
    with pytest.raises(CorpusError, match="no such domain 'notes'"):
        text_corpus.train("notes")


def test_bytes_of_tokens_add_up_to_the_text(text_corpus):
    for name, record in text_corpus.manifest.domains.items():
        counted = text_corpus.token_bytes[text_corpus.validation(name)].sum()
        assert counted == record.validation.bytes
    assert text_corpus.token_bytes[text_corpus.end_of_text_id] == 0
    assert text_corpus.token_bytes.shape == (text_corpus.vocab_size,)


def test_it_pickles_as_its_path(text_corpus):
    assert len(pickle.dumps(text_corpus)) < 1000
    assert pickle.loads(pickle.dumps(text_corpus)).hash == text_corpus.hash


def test_a_folder_without_a_manifest_is_no_corpus(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(CorpusError, match="no finished corpus is here"):
        Corpus.open(copy)


@pytest.mark.parametrize("change", ["cut", "grown", "gone"])
def test_a_shard_of_the_wrong_size_is_found_when_opening(copy, change):
    shard = copy / Corpus.open(copy).manifest.domains["code"].train.path
    contents = shard.read_bytes()
    if change == "gone":
        shard.unlink()
    else:
        shard.write_bytes(contents[:-2] if change == "cut" else contents + b"\0\0")
    with pytest.raises(CorpusError, match=r"is missing|the manifest says") as caught:
        Corpus.open(copy)
    assert caught.value.where == str(shard)


FILES = {
    "training tokens": lambda m: m.domains["code"].train.path,
    "validation tokens": lambda m: m.domains["notes"].validation.path,
    "tokenizer": lambda m: m.tokenizer.path,
    "bytes of tokens": lambda m: m.tokenizer.bytes_path,
}


@pytest.mark.parametrize("which", FILES)
def test_a_flipped_bit_in_a_file_of_the_right_size_is_found_by_its_hash(copy, which):
    path = copy / FILES[which](Corpus.open(copy).manifest)
    contents = bytearray(path.read_bytes())
    contents[-100] ^= 1
    path.write_bytes(contents)
    with pytest.raises(
        CorpusError, match=r"its hash differs\. .* build the corpus again"
    ) as caught:
        Corpus.open(copy).verify()
    assert caught.value.where == str(path)


def write_an_id_beyond_the_vocabulary(folder):
    """Into the first place of a training shard, which is returned."""
    shard = folder / Corpus.open(folder).manifest.domains["code"].train.path
    tokens = np.fromfile(shard, dtype=np.uint16)
    tokens[0] = 40_000
    tokens.tofile(shard)
    return shard


def test_ids_beyond_the_vocabulary_name_the_shard_whatever_its_hash(copy):
    shard = write_an_id_beyond_the_vocabulary(copy)
    manifest = Manifest.read(copy)
    record = manifest.domains["code"]
    result = replace(record, train=replace(record.train, sha256=file_sha256(shard)))
    replace(manifest, domains={**manifest.domains, "code": result}).write(copy)
    with pytest.raises(CorpusError, match=r"token id 40000, but .* only 320") as caught:
        Corpus.open(copy).verify()
    assert caught.value.where == str(shard)


def test_a_batch_with_an_id_beyond_the_vocabulary_names_the_shard(copy):
    shard = write_an_id_beyond_the_vocabulary(copy)
    corpus = Corpus.open(copy)
    whole = (len(corpus.train("code")) - 1) // 32  # sequences of an epoch
    alone, beside = (
        Batches(corpus, Mixture.exact({name: 1.0}), 0, whole, 32) for name in ("code", "law")
    )
    for batches in (alone, CohortBatches([beside, alone])):
        with pytest.raises(CorpusError, match="holds the token id 40000") as caught:
            batches.at(0)
        assert caught.value.where == str(shard)


def _drop_a_key(manifest):
    del manifest["domains"]["law"]["train"]["tokens"]


def _swap_a_hash(manifest):
    manifest["domains"]["law"]["train"]["sha256"] = "0" * 64


def _age(manifest):
    manifest["format"] = 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_drop_a_key, "is not complete"),
        (_swap_a_hash, "was changed after it was written"),
        (_age, "is not a manifest of format 1"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(copy, change, what):
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match=what):
        Corpus.open(copy)


def _signed(folder, change):
    """A manifest that someone else made: changed, and its hash right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    parts = [
        [name, d["role"], d["train"]["sha256"], d["validation"]["sha256"]]
        for name, d in manifest["domains"].items()
    ]
    whole = [manifest["format"], manifest["dtype"], manifest["tokenizer"]["hash"], parts]
    manifest["hash"] = digest(whole)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../../pwned", "/pwned", "a/b", "..", "", "a\\b", "law\n"])
def test_a_domain_whose_name_could_not_be_built_is_refused_when_reading(copy, name):
    _signed(copy, lambda m: m["domains"].update({name: m["domains"].pop("law")}))
    with pytest.raises(CorpusError, match="names the domain") as caught:
        Corpus.open(copy)
    assert caught.value.where == str(copy / "manifest.json")


PLACES = {
    "tokenizer": lambda m: (m["tokenizer"], "path"),
    "its bytes": lambda m: (m["tokenizer"], "bytes_path"),
    "a training shard": lambda m: (m["domains"]["law"]["train"], "path"),
    "a validation shard": lambda m: (m["domains"]["law"]["validation"], "path"),
    "hashes of documents": lambda m: (m["domains"]["law"], "documents_path"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", ["{outside}", "../outside", "shards/../../outside", "C:\\outside"])
def test_a_manifest_names_no_file_outside_its_folder(copy, place, path):
    outside = copy.parent / "outside"
    outside.write_text("secret")

    def change(manifest):
        record, key = PLACES[place](manifest)
        record[key] = path.format(outside=outside)

    _signed(copy, change)
    with pytest.raises(CorpusError, match="not inside the corpus folder"):
        Corpus.open(copy)


def test_a_link_that_leads_out_of_the_folder_is_refused(copy):
    tokenizer = Corpus.open(copy).tokenizer_path
    outside = copy.parent / "outside"
    tokenizer.rename(outside)
    tokenizer.symlink_to(outside)
    with pytest.raises(CorpusError, match="not inside the corpus folder"):
        Corpus.open(copy)


def test_a_corpus_may_itself_be_reached_through_a_link(copy):
    (copy.parent / "link").symlink_to(copy)
    assert Corpus.open(copy.parent / "link").domains == ("law", "code", "prose")


def test_a_shard_of_another_type_of_number_is_refused(copy):
    _signed(copy, lambda m: m.update(dtype="float16"))
    with pytest.raises(CorpusError, match="not one of uint16, uint32"):
        Corpus.open(copy)


def test_a_manifest_that_is_cut_is_refused(copy):
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorpusError, match="cannot be read"):
        Corpus.open(copy)


def test_the_reading_half_imports_with_numpy_alone(text_corpus):
    program = f"""
import sys
for name in ("pydantic", "yaml", "tokenizers", "fsspec", "pyarrow", "polars", "zstandard",
             "scipy", "torch", "ray", "mlflow", "optuna", "rich", "typer"):
    sys.modules[name] = None  # importing it raises ImportError
from mixopt.corpus.batches import Batches
from mixopt.corpus.shards import Corpus
corpus = Corpus.open({str(text_corpus.path)!r})
print(Batches(corpus, corpus.natural, 0, 4, 16).at(2).shape, corpus.token_bytes.shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "(4, 17) (320,)\n", done.stderr
