"""Names in a study file are those of the registries; a wrong one is answered with the nearest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from mixopt import surrogates
from mixopt.core.errors import StudyError
from mixopt.models.routers import ROUTERS
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, UPCYCLERS
from mixopt.search import designs, proposers
from mixopt.study.named_parts import import_named_parts
from mixopt.study.settings import Study, load_study

LEAST = "name: demo\ncorpus: corpus\nobjective:\n  law: 1\n"
PARTS: list[tuple[str, str, Collection[str]]] = [
    ("search:\n  surrogate: {}\n", "effective-data", surrogates.KNOWN),
    ("search:\n  proposer: {}\n", "regmix", proposers.KNOWN),
    ("search:\n  design: {}\n", "d-optimal", designs.DESIGNS),
    ("promote:\n  upcycler: {}\n", "branch-train-mix", UPCYCLERS),
    ("promote:\n  merge: {}\n", "average", MERGES),
    ("promote:\n  router_start: {}\n", "random", ROUTER_STARTS),
    ("proxy:\n  model: {{router: {}}}\n", "softmax", ROUTERS),
]


def read(folder: Path, text: str) -> Study:
    (folder / "study.yaml").write_text(LEAST + text)
    return load_study(folder / "study.yaml")


@pytest.mark.parametrize(("text", "name", "known"), PARTS)
def test_a_misspelled_name_is_refused_when_the_file_is_read(
    tmp_path: Path, text: str, name: str, known: Collection[str]
) -> None:
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text.format(name[:-1]))
    message = str(caught.value)
    assert f"is called {name[:-1]!r}" in message
    assert f"Did you mean {name!r}?" in message
    assert f"Choose one of {', '.join(sorted(known))}" in message
    assert "study.yaml:6" in message


@pytest.mark.parametrize(("text", "known"), [(text, known) for text, _, known in PARTS])
def test_every_registered_name_is_accepted(
    tmp_path: Path, text: str, known: Collection[str]
) -> None:
    for name in set(known) - {"expert-choice"}:  # which asks for a setting besides
        read(tmp_path, text.format(name))


def test_reading_a_study_imports_neither_torch_nor_a_surrogate(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(LEAST + "search: {surrogate: lightgbm, proposer: pareto}")
    code = (
        "import sys; from mixopt.study.settings import load_study; load_study(sys.argv[1]);"
        "print({'torch', 'lightgbm', 'botorch', 'optuna'} & {*sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "study.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {surrogate: 'absent.place:Model'}\n", "surrogate 'absent.place:Model' does not"),
        ("search: {proposer: 'json:Nothing'}\n", "proposer 'json:Nothing' does not import"),
        ("search: {surrogate: 'pathlib:Path'}\n", "surrogate 'pathlib:Path' is not a Surrogate"),
        ("promote: {upcycler: 'pathlib:Path'}\n", "upcycler 'pathlib:Path' is not a Upcycler"),
        ("promote: {merge: 'pathlib:Path'}\n", "merge 'pathlib:Path' is not a Merge"),
        ("promote: {router_start: 'pathlib:Path'}\n", "start 'pathlib:Path' is not a RouterStart"),
        ("promote: {model: {router: 'pathlib:Path'}}\n", "router 'pathlib:Path' is not a Router"),
    ],
)
def test_an_own_part_that_is_none_is_refused_before_a_training(
    tmp_path: Path, text: str, message: str
) -> None:
    study = read(tmp_path, text)
    with pytest.raises(StudyError, match=message) as caught:
        import_named_parts(study)
    assert "study.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "a:b", ""])
def test_a_registered_models_name_that_mlflow_would_refuse_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(StudyError, match=r"study.yaml:6: promote.name"):
        read(tmp_path, f"promote:\n  name: '{name}'\n")
