"""Parts of the user's own are found beside the study file, and nothing else is made importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.search.proposers.random import Random
from mixopt.study.named_parts import import_named_parts
from mixopt.study.own_parts import own_parts
from mixopt.study.settings import load_study

HEAD = "name: mine\ndomains: {a: 1B, b: 1B}\ntrainer: elsewhere\nobjective: {loss: 1}\n"
PART = (
    "from mixopt.search.proposers.random import Random\n\n\nclass Chance(Random):\n    name = 'c'\n"
)


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def study_beside(folder: Path, part: str, settings: str) -> Path:
    folder.mkdir()
    (folder / f"{part}.py").write_text(PART)
    (folder / "study.yaml").write_text(HEAD + settings)
    return folder / "study.yaml"


def test_a_proposer_beside_the_study_file_is_found(tmp_path: Path) -> None:
    file = study_beside(tmp_path / "s", "beside_one", "search: {proposer: 'beside_one:Chance'}\n")
    import_named_parts(load_study(file))
    assert issubclass(sys.modules["beside_one"].Chance, Random)
    assert sys.path[-1] == str(file.parent)  # after all other places
    load_study(file)
    assert sys.path.count(str(file.parent)) == 1


def test_a_study_without_own_parts_makes_nothing_importable(tmp_path: Path) -> None:
    file = study_beside(tmp_path / "s", "beside_two", "search: {proposer: bayes}\n")
    load_study(file)
    assert str(file.parent) not in sys.path


def test_a_part_that_is_nowhere_says_where_to_put_it(tmp_path: Path) -> None:
    file = study_beside(tmp_path / "s", "beside_three", "search: {surrogate: 'nowhere_3:Part'}\n")
    with pytest.raises(StudyError, match="Put its file beside the study file"):
        import_named_parts(load_study(file))


def test_own_parts_are_found_wherever_the_file_names_them() -> None:
    values = {
        "mlflow": {"uri": "http://host:5000"},
        "search": {"proposer": "mine:A", "surrogate": "auto"},
        "proxy": {"model": {"router": "mine:B"}},
        "promote": {"upcycler": "mine:C", "merge": "ties", "router_start": "mine:D"},
    }
    assert sorted(own_parts(values)) == ["mine:A", "mine:B", "mine:C", "mine:D"]
