"""`--set`: checked as the study file is, for one command, and recorded with the study."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.study.locked import lock_settings
from mixopt.study.overrides import keep_overrides, overriding, read_overrides
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import write_study

TEXT = """\
name: mine
corpus: corpus
objective: {law: 1}
guardrails:
  code: 1%
search: {rounds: 2}
baseline: [natural, {law: 0.5, code: 0.5}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(TEXT)
    return path


def loaded(file: Path, *overrides: str) -> Study:
    with overriding(overrides):
        return load_study(file)


def test_values_are_written_as_in_the_file_and_hold_for_the_block(file: Path) -> None:
    study = loaded(file, "search.rounds=5", "proxy.tokens=2M", "promote=null", "objective={a: 2}")
    assert (study.search.rounds, study.proxy.tokens, study.promote) == (5, 2_000_000, None)
    assert study.objective == {"a": 2.0}
    assert study.overrides[0] == "search.rounds=5"
    assert load_study(file).search.rounds == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.rounds=three", "--set search.rounds=three: search.rounds: "),
        ("serach.rounds=3", "Did you mean 'search'"),
        ("search.roudns=3", "--set search.roudns=3: search.roudns: there is no such key"),
        ("search.rounds", "--set search.rounds: is no KEY=VALUE"),
        ("=3", "is no KEY=VALUE"),
        ("search=[", "is not YAML"),
        ("search={rounds: -1}", "--set search={rounds: -1}: search.rounds: "),
        ("name.first=3", "name is no section in"),
        ("baseline=[]", "--set baseline=[]: baseline"),
    ],
)
def test_what_is_wrong_names_the_override(file: Path, override: str, message: str) -> None:
    with pytest.raises(StudyError) as refused:
        loaded(file, override)
    assert message in str(refused.value)


def test_what_is_wrong_in_the_file_names_its_line_still(file: Path) -> None:
    file.write_text(TEXT.replace("rounds: 2", "rounds: two"))
    with pytest.raises(StudyError, match=r"study\.yaml:6: search\.rounds"):
        loaded(file, "select.seeds=3")
    assert loaded(file, "search.rounds=3").search.rounds == 3  # set in place of the mistake


def test_the_folder_remembers_what_its_last_driver_was_given(tmp_path: Path) -> None:
    assert read_overrides(tmp_path) is None
    keep_overrides(tmp_path, ["search.rounds=3"])
    assert read_overrides(tmp_path) == ("search.rounds=3",)
    keep_overrides(tmp_path, [])
    assert read_overrides(tmp_path) == ()


def test_settings_of_trainings_that_differ_are_refused_with_the_option_that_set_them(
    tmp_path: Path,
) -> None:
    study = write_study(tmp_path)  # locks its settings
    with pytest.raises(StudyError, match=r"proxy\.tokens: was 400000, is 2000000") as refused:
        lock_settings(changed := loaded(study.path, "proxy.tokens=2M"), changed.open_data())
    assert "Leave out --set proxy.tokens=2M" in str(refused.value)

    (study.home / "study.json").unlink()
    lock_settings(changed, changed.open_data())
    keep_overrides(study.home, changed.overrides)
    with pytest.raises(StudyError, match=r"The last run had them by --set proxy\.tokens=2M"):
        lock_settings(study, study.open_data())
    free = loaded(study.path, "proxy.tokens=2M", "select.seeds=5")
    lock_settings(free, free.open_data())


def test_what_is_set_in_one_section_leaves_its_alias_in_another_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: demo\ncorpus: corpus\nobjective: {law: 1}\n"
        "proxy: {model: &shape {width: 32}}\npromote: {model: *shape}\n"
    )
    with overriding(["promote.model.width=64"]):
        study = load_study(path)
    assert study.promote is not None
    assert (study.proxy.model.width, study.promote.model.width) == (32, 64)
