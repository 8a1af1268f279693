"""Examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules_with_examples() -> list[str]:
    """Every module of mixopt whose text holds an example."""
    files = {"mixopt": ROOT / "mixopt"}
    files |= {f"mixopt.{room}": ROOT / room for room in ("proxies", "workers", "pipelines")}
    found = []
    for package, folder in files.items():
        for path in folder.rglob("*.py"):  # which follows no links: each file is met once
            if ">>> " in path.read_text():
                inside = path.relative_to(folder).with_suffix("").parts
                found.append(".".join((package, *inside)).removesuffix(".__init__"))
    return sorted(found)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module_are_true(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for examples that write files
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert tried > 0
    assert failed == 0
