"""A build reads what changed, drops duplicates, leaks nothing, and leaves a whole corpus."""

import contextlib
import json
import os
import resource

import numpy as np
import pytest
from tokenizers import Tokenizer

from mixopt.core.errors import CorpusError, FileError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus

HEAD = "tokenizer: {vocabulary: 300}\nvalidation: 0.2\ndomains:\n"


def numbered(name, count, start=0):
    return [
        f"{name} document number {n}, which is like no other" for n in range(start, start + count)
    ]


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def sources(folder, domains, head=HEAD):
    """A sources file over JSON lines, one file for each of `domains`: name → settings."""
    rows = [f"  {name}: {{files: {name}.jsonl{settings}}}" for name, settings in domains.items()]
    path = folder / "sources.yaml"
    path.write_text(head + "\n".join(rows) + "\n")
    return path


def texts(corpus, domain, split):
    """The documents of a shard, decoded."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    ids = np.asarray(getattr(corpus, split)(domain))
    pieces = np.split(ids, np.flatnonzero(ids == corpus.end_of_text_id) + 1)
    return [tokenizer.decode(piece[:-1].tolist()) for piece in pieces[:-1]]


class Log:
    """Which domains a build read."""

    def __init__(self):
        self.read = []

    def __call__(self, stage, domain, done, total):
        assert 0 <= done <= total
        if stage == "tokens" and domain not in self.read:
            self.read.append(domain)


@pytest.fixture
def two(tmp_path):
    """Sources of two training domains."""
    write(tmp_path / "a.jsonl", numbered("a", 60))
    write(tmp_path / "b.jsonl", numbered("b", 40))
    return sources(tmp_path, {"a": "", "b": ""})


def test_every_document_is_there_once_in_order_in_one_split(two, tmp_path):
    corpus = build_corpus(two, tmp_path / "out")
    for name, count in (("a", 60), ("b", 40)):
        train, held = texts(corpus, name, "train"), texts(corpus, name, "validation")
        assert sorted(train + held) == sorted(numbered(name, count))
        assert train == [text for text in numbered(name, count) if text in set(train)]
        assert 0 < len(held) < count / 2
    corpus.verify()


def test_the_split_is_by_document_and_does_not_move_with_its_neighbours(two, tmp_path):
    held = set(texts(build_corpus(two, tmp_path / "out"), "a", "validation"))
    write(tmp_path / "a.jsonl", numbered("new", 30) + numbered("a", 60)[::-1])
    again = set(texts(build_corpus(two, tmp_path / "out"), "a", "validation"))
    assert {text for text in again if text.startswith("a ")} == held


def test_the_same_input_gives_the_same_corpus_anywhere(two, tmp_path):
    first = build_corpus(two, tmp_path / "out")
    second = build_corpus(two, tmp_path / "elsewhere")
    assert first.hash == second.hash
    assert first.tokenizer_hash == second.tokenizer_hash


def test_building_again_over_the_same_input_reads_and_writes_nothing(two, tmp_path):
    build_corpus(two, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.name[0] != "."}
    log = Log()
    build_corpus(two, tmp_path / "out", log)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.name[0] != "."}
    assert log.read == []
    assert before == after


def test_a_changed_file_builds_its_domain_alone_and_keeps_the_tokenizer(two, tmp_path):
    old = build_corpus(two, tmp_path / "out")
    write(tmp_path / "b.jsonl", numbered("b", 50))
    log = Log()
    new = build_corpus(two, tmp_path / "out", log)
    assert log.read == ["b"]
    assert new.tokenizer_hash == old.tokenizer_hash
    assert new.hash != old.hash
    assert new.manifest.domains["a"] == old.manifest.domains["a"]
    assert len(list((tmp_path / "out/shards/b").iterdir())) == 1  # the old shards are gone


def test_a_file_touched_but_not_changed_gives_the_same_corpus(two, tmp_path):
    old = build_corpus(two, tmp_path / "out")
    os.utime(tmp_path / "b.jsonl", (1, 1))
    assert build_corpus(two, tmp_path / "out").hash == old.hash


def test_changed_tokenizer_settings_build_everything(two, tmp_path):
    old = build_corpus(two, tmp_path / "out")
    two.write_text(two.read_text().replace("300", "280"))
    log = Log()
    new = build_corpus(two, tmp_path / "out", log)
    assert log.read == ["a", "b"]
    assert new.vocab_size == 280 != old.vocab_size


def test_domains_may_be_added_removed_and_reordered(two, tmp_path):
    build_corpus(two, tmp_path / "out")
    write(tmp_path / "c.jsonl", numbered("c", 30))
    log = Log()
    corpus = build_corpus(sources(tmp_path, {"c": "", "a": ""}), tmp_path / "out", log)
    assert corpus.domains == ("c", "a")
    assert log.read == ["c"]
    assert not (tmp_path / "out/shards/b").exists()


def test_duplicates_are_kept_once_where_they_are_named_first(tmp_path):
    write(tmp_path / "a.jsonl", numbered("a", 30) + numbered("a", 5))
    write(tmp_path / "b.jsonl", numbered("b", 30) + numbered("a", 7))
    corpus = build_corpus(sources(tmp_path, {"a": "", "b": ""}), tmp_path / "out")
    assert corpus.manifest.domains["a"].duplicates == 5
    assert corpus.manifest.domains["b"].duplicates == 7
    assert corpus.manifest.domains["a"].documents == corpus.manifest.domains["b"].documents == 30


def test_no_document_of_a_target_is_trained_on_though_the_target_is_named_last(tmp_path):
    write(tmp_path / "a.jsonl", numbered("a", 40) + numbered("target", 10))
    write(tmp_path / "target.jsonl", numbered("target", 20))
    domains = {"a": "", "target": ", target: true"}
    corpus = build_corpus(sources(tmp_path, domains), tmp_path / "out")
    assert texts(corpus, "target", "validation") == numbered("target", 20)
    everything = texts(corpus, "a", "train") + texts(corpus, "a", "validation")
    assert sorted(everything) == sorted(numbered("a", 40))
    assert corpus.manifest.domains["a"].duplicates == 10


def test_a_target_that_comes_to_hold_a_training_document_takes_it_out(tmp_path):
    write(tmp_path / "a.jsonl", numbered("a", 40))
    write(tmp_path / "b.jsonl", numbered("b", 40))
    write(tmp_path / "target.jsonl", numbered("target", 20))
    path = sources(tmp_path, {"a": "", "b": "", "target": ", target: true"})
    build_corpus(path, tmp_path / "out")
    write(tmp_path / "target.jsonl", numbered("target", 20) + numbered("a", 3))
    log = Log()
    corpus = build_corpus(path, tmp_path / "out", log)
    assert log.read == ["target", "a"]  # b shares nothing with it, and is left alone
    assert corpus.manifest.domains["a"].duplicates == 3
    assert corpus.hash == build_corpus(path, tmp_path / "from-scratch").hash


def test_text_that_looks_like_the_end_of_text_does_not_end_a_document(tmp_path):
    write(tmp_path / "a.jsonl", [f"{n} before<|endoftext|>after" for n in range(20)])
    corpus = build_corpus(sources(tmp_path, {"a": ""}), tmp_path / "out")
    record = corpus.manifest.domains["a"]
    assert (corpus.train("a") == corpus.end_of_text_id).sum() == record.train.documents
    assert record.token_bytes == "exact"


def test_broken_documents_stop_the_build_or_are_counted(tmp_path):
    write(tmp_path / "a.jsonl", numbered("a", 30))
    with open(tmp_path / "a.jsonl", "ab") as file:
        file.write(b'{"text": ""}\n{"text": "\n{"txt": "x"}\n\xff\n')
    with pytest.raises(CorpusError, match=r"a\.jsonl:32: is not JSON"):
        build_corpus(sources(tmp_path, {"a": ""}), tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    skipping = sources(tmp_path, {"a": ", on_error: skip"})
    record = build_corpus(skipping, tmp_path / "out").manifest.domains["a"]
    assert (record.documents, record.skipped) == (30, 4)
    assert "empty document" in record.first_skipped


def test_a_file_that_cannot_be_read_is_skipped_as_one_when_the_source_says_so(tmp_path):
    write(tmp_path / "good.jsonl", numbered("a", 30))
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip")
    path = tmp_path / "sources.yaml"
    path.write_text(HEAD + "  a: {files: ['*.jsonl', '*.gz'], on_error: skip}\n")
    record = build_corpus(path, tmp_path / "out").manifest.domains["a"]
    assert (record.documents, record.skipped) == (30, 1)
    assert "bad.jsonl.gz" in record.first_skipped


def test_an_empty_domain_is_an_error_that_names_it(two, tmp_path):
    write(tmp_path / "b.jsonl", [])
    with pytest.raises(CorpusError, match=r"b: .*b\.jsonl: the domain holds no documents"):
        build_corpus(two, tmp_path / "out")
    write(tmp_path / "b.jsonl", numbered("a", 10))
    with pytest.raises(CorpusError, match="10 are duplicates of earlier ones"):
        build_corpus(two, tmp_path / "out")


def test_a_failed_build_leaves_the_old_corpus_readable(two, tmp_path):
    old = build_corpus(two, tmp_path / "out")
    (tmp_path / "b.jsonl").write_text("{broken")
    with pytest.raises(CorpusError, match=r"b\.jsonl:1"):
        build_corpus(two, tmp_path / "out")
    kept = Corpus.open(tmp_path / "out")
    kept.verify()
    assert kept.hash == old.hash


def test_a_damaged_shard_is_made_anew(two, tmp_path):
    old = build_corpus(two, tmp_path / "out")
    shard = tmp_path / "out" / old.manifest.domains["a"].train.path
    shard.write_bytes(b"")
    log = Log()
    new = build_corpus(two, tmp_path / "out", log)
    assert log.read == ["a"]
    assert new.hash == old.hash
    new.verify()


def test_a_given_tokenizer_is_used_and_tokenized_files_join_in(two, tmp_path):
    given = build_corpus(two, tmp_path / "first")
    (tmp_path / "tokenizer.json").write_bytes(given.tokenizer_path.read_bytes())
    np.save(tmp_path / "t.npy", np.asarray(given.train("b")))
    head = "tokenizer: {file: tokenizer.json}\nvalidation: 0\ndomains:\n"
    path = tmp_path / "given.yaml"
    tokens = f"{{files: t.npy, options: {{end_of_text: {given.end_of_text_id}}}}}"
    path.write_text(head + f"  a: {{files: a.jsonl}}\n  t: {tokens}\n")
    corpus = build_corpus(path, tmp_path / "second")
    assert corpus.tokenizer_hash == given.tokenizer_hash
    assert np.array_equal(corpus.train("t"), given.train("b"))
    assert corpus.manifest.domains["t"].bytes == given.manifest.domains["b"].train.bytes


def test_tokenized_files_need_their_tokenizer_and_its_ids(two, tmp_path):
    np.save(tmp_path / "t.npy", np.array([5, 70_000, 0]))
    path = tmp_path / "given.yaml"
    domain = "domains:\n  t: {files: t.npy, options: {end_of_text: 0}}\n"
    path.write_text(domain)
    with pytest.raises(CorpusError, match=r"t: is tokenized already.*tokenizer\.json"):
        build_corpus(path, tmp_path / "out")
    given = build_corpus(two, tmp_path / "first").tokenizer_path
    path.write_text(f"tokenizer: {{file: {given}}}\n{domain}")
    with pytest.raises(CorpusError, match="token 70000 is not below the vocabulary of 300"):
        build_corpus(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "domains:\n  a: {files: a.jsonl}\n  a: {files: b.jsonl}\n",
            r":3: domains\.a: .*twice.*line 2",
        ),
        ("domains:\n  a:\n    file: a.jsonl\n", r":[23]: domains\.a"),
        ("domains:\n  a:\n    files: a.jsonl\n    targt: true\n", r":4: .*targt: .*mean 'target'"),
        ("domains:\n  a/b: {files: a.jsonl}\n", r"domain 'a/b' may hold only"),
        ("domains:\n  a: {files: a.jsonl, target: true}\n", r"every domain is a target"),
        ("domains: {}\n", r":1: domains: "),
        ("validation: 2\ndomains:\n  a: {files: a.jsonl}\n", r":1: validation: .*less than 1"),
        ("domains:\n  a: {files: nothing-*.jsonl}\n", r"nothing-\*\.jsonl: no file matches"),
        ("domains: [\n", r":\d: is not YAML"),
    ],
)
def test_a_wrong_sources_file_is_refused_with_its_line(two, tmp_path, text, what):
    two.write_text(text)
    with pytest.raises(CorpusError, match=what):
        build_corpus(two, tmp_path / "out")


@pytest.mark.parametrize("link", ["shards", "shards/a", "tokenizer"])
def test_a_folder_that_is_a_link_is_refused_and_what_lies_behind_it_stays(two, tmp_path, link):
    kept = tmp_path / "elsewhere" / "kept" / "file"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    path = tmp_path / "corpus" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="is a symbolic link") as caught:
        build_corpus(two, tmp_path / "corpus")
    assert caught.value.where == str(path)
    assert kept.read_text() == "mine"


def test_cleaning_leaves_alone_what_lies_behind_a_link(two, tmp_path):
    kept = tmp_path / "elsewhere" / "file"
    kept.parent.mkdir()
    kept.write_text("mine")
    (tmp_path / "corpus" / "shards" / "a").mkdir(parents=True)
    (tmp_path / "corpus" / "shards" / "a" / "old").symlink_to(kept.parent)
    build_corpus(two, tmp_path / "corpus")
    assert kept.read_text() == "mine"


def test_a_whole_corpus_may_be_built_behind_a_link(two, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus").symlink_to(tmp_path / "elsewhere")
    assert build_corpus(two, tmp_path / "corpus").domains == ("a", "b")


@contextlib.contextmanager
def files_of_at_most(size):
    """A disk that takes no larger file, as one that is full takes none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", ["tokenizer", "shards"])
def test_a_full_disk_is_named_leaves_nothing_begun_and_the_next_build_goes_on(two, tmp_path, stage):
    out = tmp_path / "corpus"
    if stage == "shards":  # the tokenizer is there
        build_corpus(two, out)
        write(tmp_path / "a.jsonl", numbered("a", 200))
    with (
        files_of_at_most(1024),
        pytest.raises(FileError, match=rf"{out}/{stage}.*: cannot be written: File too large"),
    ):
        build_corpus(two, out)
    assert not list(out.rglob(".building-*"))
    assert len(texts(build_corpus(two, out), "a", "train")) > 30


def test_what_killed_builds_began_goes_before_the_next_one_needs_the_space(two, tmp_path):
    out = tmp_path / "corpus"
    for begun in (out / "shards" / "gone" / ".building-1", out / "tokenizer" / ".building-2"):
        begun.mkdir(parents=True)
        (begun / "train.bin").write_bytes(bytes(100))
    write(tmp_path / "a.jsonl", [])  # so that the build ends before it cleans up
    with pytest.raises(CorpusError):
        build_corpus(two, out)
    assert not list(out.rglob(".building-*"))
