"""Studies whose trainer is the user's own: domains in place of a corpus, metrics of any kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.study.data import DeclaredDomains
from mixopt.study.locked import LOCKED, lock_settings
from mixopt.study.own_trainer import parse_seconds
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import proxy_fidelity, study_binding

FILE = """\
name: ift
domains: {web: 1.2T, code: {tokens: 300B, path: "s3://data/code"}}
trainer: elsewhere
objective: {accuracy/arc: 2, loss/code: 1}
metrics: {accuracy/arc: higher}
proxy: {tokens: 1B, params: 20M}
search: {trials: 4}
"""


def study(folder: Path, *changes: tuple[str, str], more: str = "") -> Study:
    text = FILE + more
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file = folder / "ift.yaml"
    file.write_text(text)
    return load_study(file)


def test_domains_are_declared_with_their_tokens(tmp_path: Path) -> None:
    data = study(tmp_path).open_data()
    assert isinstance(data, DeclaredDomains)
    assert data.tokens == {"web": 1_200_000_000_000, "code": 300_000_000_000}
    assert data.paths == {"code": "s3://data/code"}
    assert data.natural.as_dict() == pytest.approx({"web": 0.8, "code": 0.2})


def test_a_metric_that_is_better_higher_counts_against_the_objective(tmp_path: Path) -> None:
    objective = study(tmp_path).mixture_objective()
    assert objective.weights == pytest.approx({"accuracy/arc": -2 / 3, "loss/code": 1 / 3})


def test_metrics_keep_the_trainers_names(tmp_path: Path) -> None:
    changed = study(tmp_path, ("accuracy/arc: 2, loss/code: 1", "loss: 1"))
    assert changed.mixture_objective().metrics == ("loss",)


def test_it_is_not_promoted_unasked(tmp_path: Path) -> None:
    assert study(tmp_path).promote is None


def test_of_the_proxies_only_size_and_tokens_are_known(tmp_path: Path) -> None:
    here = study(tmp_path)
    fidelity = proxy_fidelity(here, here.open_data())
    assert (fidelity.params, fidelity.tokens) == (20_000_000, 1_000_000_000)
    unknown = study(tmp_path, (", params: 20M", ""))
    assert not proxy_fidelity(unknown, unknown.open_data()).params_known


def test_more_tokens_or_another_version_are_another_study(tmp_path: Path) -> None:
    here = study(tmp_path)
    same = study(tmp_path, ("s3://data/code", "s3://elsewhere/code"))
    larger = study(tmp_path, ("1.2T", "1.3T"))
    newer = study(tmp_path, ("elsewhere\n", "{elsewhere: true, version: b}\n"))
    bindings = [study_binding(each, each.open_data()) for each in (here, same, larger, newer)]
    assert bindings[0] == bindings[1]
    assert len(set(bindings)) == 3


def test_what_is_locked_names_the_file_that_changed(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('a')\n")
    command = ("trainer: elsewhere", "trainer: {command: 'python train.py {job}', timeout: 6h}")
    here = study(tmp_path, command)
    lock_settings(here, here.open_data())
    lock_settings(study(tmp_path, command, ("6h", "1h")), here.open_data())  # no training depends
    (tmp_path / "train.py").write_text("print('b')\n")
    with pytest.raises(StudyError, match=r"trainer\.files train\.py: was '"):
        lock_settings(here, here.open_data())


def test_what_is_locked_is_what_an_own_trainer_is_asked_for(tmp_path: Path) -> None:
    here = study(tmp_path, ("elsewhere\n", "{elsewhere: true, version: b}\n"))
    lock_settings(here, here.open_data())
    keys = json.loads((here.home / LOCKED).read_text())
    assert not [key for key in keys if key.startswith(("proxy.model", "proxy.recipe"))]
    assert {key for key in keys if key.startswith("trainer")} == {
        "trainer.elsewhere",
        "trainer.version",
    }
    assert {"proxy.tokens", "proxy.params", "search.trials", "budget"} <= keys.keys()


def test_a_place_may_change(tmp_path: Path) -> None:
    here = study(tmp_path)
    lock_settings(here, here.open_data())
    assert "s3" not in (here.home / LOCKED).read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([('domains: {web: 1.2T, code: {tokens: 300B, path: "s3://data/code"}}', "")], "domains"),
        ([("domains:", "corpus: corpus\ndomains:")], "not both"),
        ([("trainer: elsewhere\n", "")], "need a trainer of your own"),
        ([("elsewhere", "{elsewhere: true, command: x}")], "name a command, or a function"),
        ([("elsewhere", "{version: a}")], "name a command, or a function"),
        ([("elsewhere", "nothing")], "'nothing' is no trainer"),
        ([("arc: 2", "arc: -2")], "weight is not to be negative"),
        ([("params: 20M", "model: {width: 8}")], "your trainer has its own"),
        ([("higher", "more")], "lower"),
        ([("web: 1.2T, code", "code")], "2"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_line(
    tmp_path: Path, changes: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(StudyError, match=message) as refused:
        study(tmp_path, *changes)
    assert "ift.yaml:" in str(refused.value)


def test_tasks_are_for_our_proxies(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="only our proxies answer them"):
        study(tmp_path, more="tasks: {exam: exam.jsonl}\n")


def test_a_space_of_unknown_domains_is_refused(tmp_path: Path) -> None:
    here = study(tmp_path, more="space: {bounds: {law: [0, 0.5]}}\n")
    with pytest.raises(StudyError, match="no training domain 'law'"):
        here.open_data()


def test_durations() -> None:
    assert [parse_seconds(text) for text in ("90s", "30m", "1.5h", "2d")] == [
        90,
        1800,
        5400,
        172_800,
    ]
    with pytest.raises(ValueError, match="write 90s"):
        parse_seconds("soon")
