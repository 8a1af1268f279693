"""Errors in YAML files name the line, the key and the fix."""

import re
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_core._pydantic_core import list_all_errors

from mixopt.core.errors import CorpusError, StudyError
from mixopt.core.recipe import Recipe
from mixopt.io import yaml_lines
from mixopt.io.plain_words import PATTERNS, plain_words
from mixopt.study.settings import Study as StudyFile


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["search"] = "search"
    budget: int
    noise: float = 0.0


class Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["fixed"]
    weights: dict[str, float]


class Study(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = ""
    rounds: list[Search | Fixed] = []
    recipe: Recipe = Recipe()
    places: dict[str, Search] = {}


def load(tmp_path, text, error=StudyError):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return yaml_lines.load(path, Study, error)


def refusal(tmp_path, text):
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_a_right_file_becomes_the_model(tmp_path):
    study = load(tmp_path, "name: first\nrounds:\n  - {budget: 3}\nrecipe: {learning_rate: 3e-4}\n")
    assert study.rounds[0].budget == 3
    assert study.recipe.learning_rate == 3e-4


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load(tmp_path, "# nothing yet\n") == Study()


def test_scientific_numbers_are_numbers_and_no_is_a_name(tmp_path):
    study = load(tmp_path, "places:\n  no: {budget: 1e6, noise: 5e-2}\n  on: {budget: 1_000}\n")
    assert study.places["no"].budget == 1_000_000
    assert study.places["no"].noise == 0.05
    assert study.places["on"].budget == 1_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: x\nplaces:\n  home:\n    budgt: 3\n    budget: 3\n",
            "study.yaml:4: places.home.budgt: there is no such key. Did you mean 'budget'?",
        ),
        (
            "name: x\nzzz: 3\n",
            "study.yaml:2: zzz: there is no such key. Choose from name, places, recipe, rounds.",
        ),
        (
            "places:\n  home:\n    noise: 1\n",
            "study.yaml:2: places.home.budget: is missing. Add it.",
        ),
        ("recipe:\n  warmpu: 0.1\n", "study.yaml:2: recipe.warmpu: there is no such key."),
        ("recipe:\n  learning_rate: -1\n", "study.yaml:2: recipe.learning_rate: must be above 0"),
        (
            "places:\n  home: {budget: x}\n",
            "study.yaml:2: places.home.budget: must be a whole number, it is 'x'",
        ),
        (
            "places:\n\n  home:\n    budget: 1\n    budget: 2\n",
            "study.yaml:5: places.home.budget: the",
        ),
        ("name: [\n", "study.yaml:2: is not YAML"),
        ("name: x\n\tplaces: 3\n", "study.yaml:2: is not YAML"),
        ("- a\n- b\n", "study.yaml:1: keys with values belong here, it is ['a', 'b']. Write {name"),
        (
            "places:\n  home: text/a.txt\n",
            "study.yaml:2: places.home: keys with values belong here, it is 'text/a.txt'. "
            "Write {budget: …}; keys are budget, kind, noise.",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_mend(tmp_path, text, expected):
    assert refusal(tmp_path, text).startswith(expected)


def test_the_first_of_several_problems_is_told_and_the_rest_counted(tmp_path):
    text = refusal(tmp_path, "places:\n  a: {budget: x}\n  b: {budget: y}\n  c: {}\n")
    assert text.startswith("study.yaml:2: places.a.budget")
    assert "(and 2 more problems)" in text


def test_lines_inside_lists_and_unions_are_found(tmp_path):
    text = "rounds:\n  - kind: search\n    budget: 1\n  - kind: fixed\n    weights: {a: b}\n"
    assert refusal(tmp_path, text).startswith("study.yaml:")
    assert "rounds.1" in refusal(tmp_path, text)


def test_the_caller_chooses_the_class_of_errors(tmp_path):
    with pytest.raises(CorpusError, match="cannot be read: No such file"):
        yaml_lines.load(tmp_path / "absent.yaml", Study, CorpusError)


def test_bytes_that_are_no_text_are_an_error_not_a_crash(tmp_path):
    (tmp_path / "study.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(StudyError, match="is not YAML"):
        yaml_lines.load(tmp_path / "study.yaml", Study)


@pytest.mark.parametrize("typo", ["objektive: {web: 1}", "zzz: 1"])
def test_an_unknown_key_is_told_before_what_follows_from_it(tmp_path, typo):
    path = tmp_path / "study.yaml"
    path.write_text(f"name: x\ncorpus: c\nseed: -1\n{typo}\n")  # the objective is missing, too
    with pytest.raises(StudyError, match=r"study\.yaml:4: \w+: there is no such key"):
        yaml_lines.load(path, StudyFile)


def patterns(schema):
    """All patterns that a JSON schema asks of texts."""
    if isinstance(schema, dict):
        here = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
        return [*here, *(p for inner in schema.values() for p in patterns(inner))]
    if isinstance(schema, list):
        return [p for inner in schema for p in patterns(inner)]
    return []


def test_no_words_of_pydantic_reach_a_person():
    for error in list_all_errors():
        context = dict.fromkeys(re.findall(r"{(\w+)}", error["message_template_python"]), "x")
        text = plain_words(error["type"], error["message_template_python"], context)
        assert "should" not in text.lower(), error["type"]
        assert not text.startswith("Input")
    found = set(patterns(StudyFile.model_json_schema()))
    assert len(found) > 1
    assert found <= set(PATTERNS)
