"""A study defined in Python is checked and kept as one of a file is; docs/python.md runs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import mixopt
from mixopt.core.errors import StudyError
from mixopt.study.sections import Search
from mixopt.study.settings import load_study

WHOLE: dict[str, Any] = {
    "name": "tiny",
    "corpus": "corpus",
    "objective": {"law": 1.0},
    "space": {"bounds": {"law": (0.1, 0.5)}, "budget": "1.5M"},
    "proxy": {"tokens": "20k", "recipe": {"learning_rate": 3e-4, "batch_sequences": 4}},
    "search": {"trials": 4, "pruner": {"chance": 0.1}},
    "promote": None,
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"searches": {}}, "mixopt.Study: searches: there is no such key. Did you mean 'search'?"),
        (
            {"search": {"trials": 2}},
            "mixopt.Study: search.trials: must be at least 3, it is 2.",
        ),
        (
            {"space": {"bounds": {"law": [0, 2]}}},
            "mixopt.Study: space.bounds.law.1: must be at most 1, it is 2.",
        ),
        (
            {"search": {"surrogate": "gpp"}},
            "mixopt.Study: search.surrogate: no surrogate is called 'gpp'",
        ),
        (
            {"proxy": {"model": {"width": 30, "heads": 4}}},
            "mixopt.Study: proxy.model.",
        ),
        ({"objective": {"law": 0}}, "mixopt.Study: objective: every weight is 0"),
    ],
)
def test_what_a_file_is_refused_for_is_refused_with_the_key(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError) as refused:
        mixopt.Study(**{**WHOLE, **settings}, directory=tmp_path)
    assert str(refused.value).startswith(message)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(_lists({**WHOLE, **settings})))
    with pytest.raises(StudyError) as by_file:
        load_study(file)
    assert (by_file.value.what, by_file.value.hint) == (refused.value.what, refused.value.hint)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_its_file_says_the_same(tmp_path: Path) -> None:
    study = mixopt.Study(**WHOLE, directory=tmp_path)
    assert study.save() == tmp_path / "tiny.yaml"
    assert load_study(study.path) == study.settings
    assert study.settings.home == tmp_path / "tiny"
    assert study.settings.promote is None
    assert study.settings.space.budget == 1_500_000


def test_sections_may_be_those_of_the_library(tmp_path: Path) -> None:
    study = mixopt.Study(**{**WHOLE, "search": Search(trials=5, rounds=1)}, directory=tmp_path)
    assert yaml.safe_load(study.save().read_text())["search"] == {"trials": 5, "rounds": 1}


def test_a_file_of_its_own_is_replaced_and_a_persons_is_not(tmp_path: Path) -> None:
    mixopt.Study(**WHOLE, directory=tmp_path).save()
    longer = mixopt.Study(**{**WHOLE, "search": {"trials": 9}}, directory=tmp_path)
    assert load_study(longer.save()).search.trials == 9
    by_hand = yaml.safe_dump({**_lists(WHOLE), "search": {"trials": 9}})
    longer.path.write_text(by_hand)
    assert longer.save().read_text() == by_hand  # it says the same
    with pytest.raises(StudyError, match=r"not written by mixopt\.Study"):
        mixopt.Study(**WHOLE, directory=tmp_path).save()
    assert longer.path.read_text() == by_hand


def test_a_study_that_was_not_run_has_nothing_to_open(tmp_path: Path) -> None:
    study = mixopt.Study(**WHOLE, directory=tmp_path)
    for _ in range(2):
        with pytest.raises(StudyError, match=r"has not begun.*Run `study\.run\(\)` first"):
            study.open()
        study.save()


def test_an_unknown_step_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    study = mixopt.Study(**WHOLE, directory=tmp_path)
    with pytest.raises(StudyError, match=r"no step 'selct'\. Choose from search, select"):
        study.run("selct")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
