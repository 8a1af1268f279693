"""`mixopt corpus` builds, describes and refuses in words a person can act on."""

import json
import os
import subprocess
import sys

import pytest


def mixopt(*arguments, columns=100):
    """Runs the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "mixopt", "corpus", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sources of a training domain with a duplicate and a broken line, and of a target."""
    folder = tmp_path_factory.mktemp("commands")
    rows = [json.dumps({"text": f"document {n} " + "of words " * 9}) for n in range(50)]
    (folder / "encyclopaedia.jsonl").write_text("\n".join([*rows, rows[0], "{"]))
    (folder / "exam.jsonl").write_text('{"text": "one question"}')
    (folder / "sources.yaml").write_text(
        "tokenizer: {vocabulary: 280}\ndomains:\n"
        "  encyclopaedia: {files: encyclopaedia.jsonl, on_error: skip}\n"
        "  exam: {files: exam.jsonl, target: true}\n"
    )
    return folder


def test_build_makes_a_corpus_and_describe_shows_it(folder):
    built = mixopt("build", folder / "sources.yaml", folder / "out")
    assert built.returncode == 0, built.stderr
    described = mixopt("describe", folder / "out", "--verify")
    assert described.returncode == 0, described.stderr
    lines = described.stdout.splitlines()
    assert max(map(len, lines[:3])) <= 100
    words = {line.split()[0]: line.split() for line in lines[1:3]}
    assert words["encyclopaedia"][1] == "50"  # documents
    assert words["encyclopaedia"][-4:] == ["1.0000", "1", "1", "train"]
    assert words["exam"][-1] == "target"
    assert "every file verified" in described.stdout
    assert "encyclopaedia.jsonl:52: is not JSON" in described.stdout


def test_a_mistake_in_the_sources_file_is_one_line_without_a_traceback(folder):
    (folder / "wrong.yaml").write_text("domains:\n  a:\n    fils: x.jsonl\n")
    done = mixopt("build", folder / "wrong.yaml", folder / "other")
    assert done.returncode == 1
    assert "wrong.yaml:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "other" / "manifest.json").exists()


def test_describing_what_is_no_corpus_says_what_to_do(folder):
    done = mixopt("describe", folder)
    assert done.returncode == 1
    assert "no finished corpus is here" in done.stderr
    assert "mixopt corpus build" in done.stderr


def test_verify_finds_a_changed_token(folder, tmp_path):
    assert mixopt("build", folder / "sources.yaml", tmp_path / "out").returncode == 0
    [shard] = (tmp_path / "out/shards/encyclopaedia").glob("*/train.bin")
    contents = bytearray(shard.read_bytes())
    contents[0] ^= 1
    shard.write_bytes(contents)
    assert mixopt("describe", tmp_path / "out").returncode == 0
    done = mixopt("describe", tmp_path / "out", "--verify")
    assert done.returncode == 1
    assert "its hash differs" in done.stderr


def test_from_environment_makes_a_corpus(tmp_path):
    done = mixopt("from-environment", tmp_path / "out", "--megabytes", 0.05, "--vocabulary", 300)
    assert done.returncode == 0, done.stderr
    assert "descriptions" in done.stdout
