"""Two tokenizers are the same if they give the same tokens the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import CheckpointError
from mixopt.models.families.tokenizers import difference

VOCABULARY = {"a": 0, "b": 1, "ab": 2}
END = {"id": 3, "content": "<end>"}


def fast(vocabulary: Any = VOCABULARY, merges: Any = (), added: Any = (END,)) -> dict[str, Any]:
    return {"model": {"vocab": vocabulary, "merges": merges}, "added_tokens": added}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(fast(merges=["a b"])))
    return tmp_path / "one", tmp_path / "other"


def test_formatting_does_not_count(folders: tuple[Path, Path]) -> None:
    same = fast(dict(reversed(VOCABULARY.items())), [["a", "b"]])
    (folders[0] / "tokenizer.json").write_text(json.dumps(same, indent=4))
    assert difference(*folders) == ""


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        (fast({"a": 1, "b": 0, "ab": 2}), "token 'b' is id 0, and id 1"),
        (fast({"a": 0, "b": 1}), "token 'ab' is absent, and id 2"),
        (fast(added=()), "token '<end>' is absent, and id 3"),
        (fast(merges=[["b", "a"]]), "its merges are others"),
        (fast([["a", -1.0], ["b", -2.0], ["c", -3.0]]), "token 'ab' is absent, and id 2"),
    ],
    ids=["ids", "a token less", "an added token less", "merges", "unigram"],
)
def test_the_first_difference_is_named(
    tokenizer: Any, expected: str, folders: tuple[Path, Path]
) -> None:
    (folders[0] / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert difference(*folders) == expected


def test_without_a_fast_tokenizer_the_older_files_are_compared(tmp_path: Path) -> None:
    for name, vocabulary, pieces in (("one", '{"a": 0}', b"1"), ("other", '{ "a":0 }', b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.json").write_text(vocabulary)
        (tmp_path / name / "tokenizer.model").write_bytes(pieces)
    one, other = tmp_path / "one", tmp_path / "other"
    assert difference(one, other) == ""
    (one / "vocab.json").unlink()
    assert difference(one, other) == "its tokenizer.model is another"
    (one / "tokenizer.model").unlink()
    assert difference(one, other) == ""


def test_a_cut_tokenizer_is_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "tokenizer.json").write_text('{"model": {"vocab": {"a"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is cut or no JSON"):
        difference(*folders)
