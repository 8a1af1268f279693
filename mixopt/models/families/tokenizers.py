"""Whether two checkpoints have the same tokenizer: the same tokens with the same ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.models.families.checkpoint import read_object

FAST, PIECES, VOCABULARY = "tokenizer.json", "tokenizer.model", "vocab.json"


def difference(one: Path, other: Path) -> str:
    """What differs between the tokenizers of two folders, in words; empty if nothing does.

    How the files are formatted does not count. A folder without a tokenizer has none to differ.

    Raises:
        CheckpointError: a tokenizer's file is cut.
    """
    for name, compare in ((FAST, _fast), (VOCABULARY, _vocabularies), (PIECES, _bytes)):
        if (one / name).is_file() and (other / name).is_file():
            return compare(one / name, other / name)
    return ""


def _fast(one: Path, other: Path) -> str:
    mine, others = read_object(one), read_object(other)
    if found := _ids_differ(_token_ids(mine), _token_ids(others)):
        return found
    if _merges(mine) != _merges(others):
        return "its merges are others"
    return ""


def _vocabularies(one: Path, other: Path) -> str:
    return _ids_differ(read_object(one), read_object(other))


def _bytes(one: Path, other: Path) -> str:
    return "" if one.read_bytes() == other.read_bytes() else f"its {one.name} is another"


def _ids_differ(mine: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    differ = (t for t in mine.keys() | others.keys() if mine.get(t) != others.get(t))
    token = min(differ, key=lambda t: (mine.get(t, others.get(t)), t), default=None)
    if token is None:
        return ""
    spelled = [f"id {ids[token]}" if token in ids else "absent" for ids in (mine, others)]
    return f"token {token!r} is {spelled[0]}, and {spelled[1]}"


def _token_ids(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Token → id, added tokens included."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if not isinstance(vocabulary, dict):  # Unigram: [token, score] in the order of their ids
        vocabulary = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
    added = tokenizer.get("added_tokens") or ()
    return {**vocabulary, **{entry["content"]: entry["id"] for entry in added}}


def _merges(tokenizer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The merges of BPE in order; tokenizers 0.20 writes pairs, older ones `left right`."""
    merges = (tokenizer.get("model") or {}).get("merges") or ()
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]
