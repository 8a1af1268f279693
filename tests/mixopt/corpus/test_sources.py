"""Every source streams its documents, and names the file and line of what it cannot use."""

import gzip
import io
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import find, find_all
from mixopt.corpus.sources import Source, find_source, infer_source
from mixopt.corpus.sources.jsonl import JsonLines
from mixopt.corpus.sources.parquet import Parquet
from mixopt.corpus.sources.text import Text
from mixopt.corpus.sources.tokens import Tokens
from mixopt.testing.sources import SourceConformance


def as_json_lines(texts):
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()


class TestJsonLines(SourceConformance):
    source, ending = JsonLines, ".jsonl"

    def write(self, path, texts):
        path.write_bytes(as_json_lines(texts))


class TestGzippedJsonLines(SourceConformance):
    source, ending = JsonLines, ".jsonl.gz"

    def write(self, path, texts):
        path.write_bytes(gzip.compress(as_json_lines(texts)))


class TestZstandardJsonLines(SourceConformance):
    source, ending = JsonLines, ".jsonl.zst"

    def write(self, path, texts):
        # a frame for each document, as parallel compressors write them
        path.write_bytes(b"".join(zstandard.compress(as_json_lines([t])) for t in texts))


class TestParquet(SourceConformance):
    source, ending = Parquet, ".parquet"

    def write(self, path, texts):
        pl.DataFrame({"n": range(len(texts)), "text": texts}).write_parquet(path, row_group_size=2)


class TestText(SourceConformance):
    source, ending, one_per_file = Text, ".txt", True

    def write(self, path, texts):
        path.write_bytes("".join(texts).encode())


class _TokensConformance(SourceConformance):
    source, options = Tokens, {"end_of_text": 0, "dtype": "uint16"}

    def ids(self, text):
        return [byte + 1 for byte in text.encode()]

    def closed(self, texts):
        return np.array([i for text in texts for i in (*self.ids(text), 0)], dtype=np.uint16)

    def same(self, document, text):
        return document.tolist() == self.ids(text)


class TestRawTokens(_TokensConformance):
    ending = ".bin"

    def write(self, path, texts):
        self.closed(texts).tofile(path)


class TestNumpyTokens(_TokensConformance):
    ending = ".npy"

    def write(self, path, texts):
        np.save(path, self.closed(texts).astype(np.int32))


def read(source: Source):
    def refuse(error):
        raise error

    return [d for file in source.files for d in source.documents(file, refuse)]


def read_skipping(source: Source):
    errors = []
    documents = [d for file in source.files for d in source.documents(file, errors.append)]
    return documents, errors


BROKEN_LINES = {
    "not JSON": b'{"text": "a"',
    "no JSON object": b'["text"]',
    "no field 'text'": b'{"content": "a"}',
    "holds int": b'{"text": 7}',
    "not UTF-8": b'{"text": "\xff"}',
    "half a character": b'{"text": "\\ud800"}',
}


@pytest.mark.parametrize("what", BROKEN_LINES)
def test_a_broken_json_line_is_named_by_file_and_line_and_may_be_skipped(tmp_path, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "first"}\n\n' + BROKEN_LINES[what] + b'\n{"text": "last"}')
    source = JsonLines(find(["a.jsonl"], tmp_path))
    with pytest.raises(CorpusError, match=what) as caught:
        read(source)
    assert caught.value.where == f"{path}:3"
    assert caught.value.hint
    documents, errors = read_skipping(source)
    assert documents == ["first", "last"]
    assert [error.where for error in errors] == [f"{path}:3"]


@pytest.mark.parametrize(
    ("ending", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_a_cut_compressed_file_is_an_error_not_a_short_file(tmp_path, ending, compress):
    path = tmp_path / f"a.jsonl{ending}"
    texts = [np.random.default_rng(n).bytes(400).hex() for n in range(2000)]
    path.write_bytes(compress(as_json_lines(texts))[:-100])
    with pytest.raises(CorpusError, match="cannot be read to its end") as caught:
        read(JsonLines(find([path.name], tmp_path)))
    assert caught.value.where == str(path)


def test_lines_longer_than_a_block_come_whole(tmp_path):
    texts = ["a" * 1_000_000, "b", "c" * 700_000]
    (tmp_path / "a.jsonl").write_bytes(as_json_lines(texts))
    assert read(JsonLines(find(["a.jsonl"], tmp_path))) == texts


def test_a_missing_parquet_column_names_the_file_and_the_columns_there_are(tmp_path):
    pl.DataFrame({"body": ["a"], "n": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"has no column 'text'.*body, n"):
        read(Parquet(find(["a.parquet"], tmp_path)))
    with pytest.raises(CorpusError, match="column 'n' holds int64"):
        read(Parquet(find(["a.parquet"], tmp_path), text="n"))


def test_a_null_in_parquet_is_named_by_its_row(tmp_path):
    pl.DataFrame({"text": ["a", None, "c"]}).write_parquet(tmp_path / "a.parquet")
    documents, errors = read_skipping(Parquet(find(["a.parquet"], tmp_path)))
    assert documents == ["a", "c"]
    assert [error.where for error in errors] == [f"{tmp_path / 'a.parquet'}:2"]


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(CorpusError, match=r"a\.parquet: is not Parquet"):
        read(Parquet(find(["a.parquet"], tmp_path)))


def test_a_text_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"a\.txt: is not UTF-8: byte 0xef at 2"):
        read(Text(find(["a.txt"], tmp_path)))


def test_cut_token_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(1, 1000, dtype=np.uint16))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-10])
    (tmp_path / "b.bin").write_bytes(b"123")
    with pytest.raises(CorpusError, match=r"a\.npy: is cut: it should hold 999 tokens"):
        read(Tokens(find(["a.npy"], tmp_path), options={"end_of_text": 0}))
    with pytest.raises(CorpusError, match=r"b\.bin: ends in the middle of a token"):
        read(Tokens(find(["b.bin"], tmp_path), options={"end_of_text": 0, "dtype": "uint16"}))


def test_files_are_found_by_glob_folder_list_and_url_each_once(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        (tmp_path / name).write_text(name)

    def names(*patterns):
        return [file.url.removeprefix(f"{tmp_path}/") for file in find([*patterns], tmp_path)]

    assert names("*.txt") == ["a.txt", "b.txt"]
    assert names(".") == names("**/*.txt") == ["a.txt", "b.txt", "deep/c.txt"]
    assert names("b.txt", "*.txt") == ["b.txt", "a.txt"]
    assert names(f"file://{tmp_path}/deep/*.txt") == ["deep/c.txt"]


def test_files_are_read_through_any_fsspec_file_system():
    import fsspec

    memory = fsspec.filesystem("memory")
    with memory.open("/corpus-test/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(as_json_lines(["from afar"])))
    files = find(["memory://corpus-test/*.jsonl.gz"], None)
    assert read(JsonLines(files)) == ["from afar"]
    assert find(["memory://"], None) == find(["memory://corpus-test"], None) == files


def test_a_pattern_without_a_match_is_an_error(tmp_path):
    for pattern in ("no.jsonl", "no/*.jsonl"):
        with pytest.raises(CorpusError, match="no file matches"):
            find([pattern], tmp_path)


def test_the_format_is_told_by_the_ending(tmp_path):
    for name in ("a.jsonl.zst", "a.parquet", "a.txt", "a.bin", "a.pdf"):
        (tmp_path / name).write_bytes(b"")
    found = {name: infer_source(find([name], tmp_path)) for name in ("a.jsonl.zst", "a.parquet")}
    assert found == {"a.jsonl.zst": "jsonl", "a.parquet": "parquet"}
    with pytest.raises(CorpusError, match=r"cannot tell the format by the ending '\.pdf'"):
        infer_source(find(["a.pdf"], tmp_path))
    with pytest.raises(CorpusError, match="among files of other formats"):
        infer_source(find(["a.txt", "a.bin"], tmp_path))


def test_an_unknown_source_is_refused_with_the_names_there_are():
    with pytest.raises(CorpusError, match=r"no source is called 'jsnl'.*jsonl, parquet"):
        find_source("jsnl")
    assert find_source("mixopt.corpus.sources.text:Text") is Text


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_a_byte_order_mark_is_no_text(tmp_path, compress):
    ending = {gzip.compress: ".gz", zstandard.compress: ".zst"}.get(compress, "")
    mark = b"\xef\xbb\xbf"
    lines = compress(mark + as_json_lines(["one"]) + mark + as_json_lines(["two"]) + mark)
    (tmp_path / f"a.jsonl{ending}").write_bytes(lines)
    (tmp_path / f"a.txt{ending}").write_bytes(compress(mark + b"one"))
    assert read(JsonLines(find([f"a.jsonl{ending}"], tmp_path))) == ["one", "two"]
    assert read(Text(find([f"a.txt{ending}"], tmp_path))) == ["one"]


def test_utf16_is_called_by_its_name(tmp_path):
    (tmp_path / "a.txt").write_bytes("naïve".encode("utf-16"))
    with pytest.raises(CorpusError, match=r"a\.txt: is UTF-16.*iconv"):
        read(Text(find(["a.txt"], tmp_path)))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_called_by_its_name(tmp_path, indent):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=indent))
    source = JsonLines(find(["a.json"], tmp_path))
    with pytest.raises(CorpusError, match=r"is one JSON array.*jq") as caught:
        read(source)
    assert caught.value.where == str(tmp_path / "a.json")


def _parquet(path, texts, kind):
    binary = pa.array(texts, pa.binary())
    column = pa.Array.from_buffers(kind, len(binary), binary.buffers())
    pq.write_table(pa.table({"text": column}), path, row_group_size=400)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_value_in_parquet_that_is_not_utf8_costs_its_row_alone(tmp_path, kind):
    texts = [f"row {n}".encode() for n in range(1, 1001)]
    texts[137] = b"caf\xe9"
    _parquet(tmp_path / "a.parquet", texts, kind)
    source = Parquet(find(["a.parquet"], tmp_path))
    with pytest.raises(CorpusError, match=r"a\.parquet:138: is not UTF-8: byte 0xe9 at 3"):
        read(source)
    documents, errors = read_skipping(source)
    assert documents == [f"row {n}" for n in range(1, 1001) if n != 138]
    assert [error.where for error in errors] == [f"{tmp_path / 'a.parquet'}:138"]


def test_categories_and_views_in_parquet_are_text(tmp_path):
    for name, kind in {
        "a": pa.dictionary(pa.int32(), pa.string()),
        "b": pa.large_string(),
        "c": pa.string_view(),
    }.items():
        column = pa.array(["x", None, "é"]).cast(kind)
        pq.write_table(pa.table({"text": column}), tmp_path / f"{name}.parquet")
    documents, errors = read_skipping(Parquet(find(["*.parquet"], tmp_path)))
    assert documents == ["x", "é"] * 3
    assert len(errors) == 3


def test_rows_of_a_broken_row_group_are_counted_and_the_next_groups_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pa.array([f"row {n:04}" for n in range(1, 1001)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=400, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    contents = bytearray(path.read_bytes())
    start = column.data_page_offset
    contents[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(contents)
    documents, errors = read_skipping(Parquet(find(["a.parquet"], tmp_path)))
    assert documents == [f"row {n:04}" for n in [*range(1, 401), *range(801, 1001)]]
    assert [error.where for error in errors] == [f"{path}:{n}" for n in range(401, 801)]
    assert "rows 401 to 800" in str(errors[0])


IDS = np.array([5, 6, 0, 7, 8, 9, 0] * 20)


def documents_of(folder, name, **options):
    return [
        d.tolist()
        for d in read(Tokens(find([name], folder), options={"end_of_text": 0, **options}))
    ]


@pytest.mark.parametrize("name", ["a.npy", "a.bin"])
def test_raw_ids_need_their_type(tmp_path, name):
    IDS.astype(np.uint16).tofile(tmp_path / name)
    with pytest.raises(CorpusError, match=r"raw ids, and nothing says of what type.*uint16"):
        documents_of(tmp_path, name)
    assert documents_of(tmp_path, name, dtype="uint16") == [[5, 6], [7, 8, 9]] * 20


@pytest.mark.parametrize(
    ("wide", "narrow"), [("int32", "uint16"), ("int64", "int32"), ("int64", "uint16")]
)
def test_ids_read_as_halves_are_refused(tmp_path, wide, narrow):
    IDS.astype(wide).tofile(tmp_path / "a.bin")
    with pytest.raises(CorpusError, match="every second id is 0"):
        documents_of(tmp_path, "a.bin", dtype=narrow)
    assert documents_of(tmp_path, "a.bin", dtype=wide) == [[5, 6], [7, 8, 9]] * 20


def test_megatron_says_the_type_of_its_ids(tmp_path):
    IDS.astype(np.int32).tofile(tmp_path / "a.bin")
    (tmp_path / "a.idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, 0, 0))
    assert documents_of(tmp_path, "a.bin") == [[5, 6], [7, 8, 9]] * 20
    with pytest.raises(CorpusError, match=r"holds int32 by its \.idx file, not uint16"):
        documents_of(tmp_path, "a.bin", dtype="uint16")
    (tmp_path / "a.idx").write_bytes(b"something else")
    with pytest.raises(CorpusError, match=r"a\.idx: is no index that Megatron wrote"):
        documents_of(tmp_path, "a.bin")


@pytest.mark.parametrize(
    "name", ["a [v1].txt", "what?.txt", "50%25.txt", "c#.txt", "a*.txt", "{a}.txt"]
)
def test_a_file_may_be_named_with_what_globs_and_urls_use(tmp_path, name):
    folder = tmp_path / "data [x] #1 100%"
    folder.mkdir()
    (folder / name).write_text("text")
    for pattern in (name, "*.txt", "."):
        assert read(Text(find([pattern], folder))) == ["text"]


def test_hidden_files_and_markers_in_a_folder_are_left_out(tmp_path):
    folder = tmp_path / ".home" / "snapshot"
    names = ["data/a.txt", "_b.txt", ".cache/hub/c.txt", ".a.txt.crc", "_SUCCESS", "__MACOSX/a.txt"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert read(Text(find([str(folder)], tmp_path))) == ["_b.txt", "data/a.txt"]
    assert read(Text(find([".home/snapshot/.a.txt.crc"], tmp_path))) == [".a.txt.crc"]
    assert read(Text(find([".home/snapshot/*"], tmp_path))) == ["_b.txt"]
    assert read(Text(find([".home/snapshot/**"], tmp_path))) == ["_b.txt", "data/a.txt"]
    assert read(Text(find([".home/snapshot/.cache/*/*"], tmp_path))) == [".cache/hub/c.txt"]
    assert read(Text(find([".home/snapshot/.*"], tmp_path))) == [".a.txt.crc"]


@pytest.mark.parametrize("pattern", ["snap", "snap/", "snap/**"])
def test_what_documents_a_folder_is_left_out_and_named(tmp_path, pattern):
    for name in ("README.md", "LICENSE", "a.txt", "sub/README.md", "readme_first.txt"):
        path = tmp_path / "snap" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = find_all([pattern], tmp_path)
    assert read(Text(found.files)) == ["a.txt", "readme_first.txt", "sub/README.md"]
    assert [Path(file.url).name for file in found.left_out] == ["LICENSE", "README.md"]
    both = find_all([pattern, "snap/README.md"], tmp_path)
    assert sorted(read(Text(both.files)))[0] == "README.md"
    assert [Path(file.url).name for file in both.left_out] == ["LICENSE"]


def test_a_folder_of_documentation_alone_is_read(tmp_path):
    (tmp_path / "README.md").write_text("text")
    assert read(Text(find(["."], tmp_path))) == ["text"]


def test_a_file_of_another_format_is_named(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "infos.json.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CorpusError) as caught:
        infer_source(find(["."], tmp_path))
    message = str(caught.value)
    assert "infos.json.txt: is text, among files of other formats (2 jsonl and 1 text)" in message
    assert "`*.jsonl`" in message


def test_a_zstandard_window_may_be_large(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    contents = stream.compress(as_json_lines(["far"])) + stream.flush()
    (tmp_path / "a.jsonl.zst").write_bytes(contents)
    assert read(JsonLines(find(["a.jsonl.zst"], tmp_path))) == ["far"]


def test_a_large_file_is_never_held_as_a_whole(tmp_path):
    text = "word " * 200
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        line = as_json_lines([text])
        for _ in range(100):
            file.write(line * 300)  # 30 MB in all
    pl.DataFrame({"text": [text] * 30_000}).write_parquet(
        tmp_path / "a.parquet", row_group_size=1000
    )
    for source in (JsonLines(find(["*.gz"], tmp_path)), Parquet(find(["*.parquet"], tmp_path))):
        tracemalloc.start()
        count = sum(1 for file in source.files for _ in source.documents(file, print))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 30_000
        assert peak < 6e6


def test_documents_in_token_files_are_cut_where_they_would_never_end(tmp_path, monkeypatch):
    monkeypatch.setattr("mixopt.corpus.sources.tokens.LONGEST", 50_000)
    buffer = io.BytesIO()
    np.save(buffer, np.ones(400_000, dtype=np.uint32))
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    documents = read(Tokens(find(["a.npy"], tmp_path), options={"end_of_text": 0}))
    assert sum(map(len, documents)) == 400_000
    assert len(documents) > 1
