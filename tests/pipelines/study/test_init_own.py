"""`mixopt init --trainer` writes a study file for those who train by other means."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mixopt.core.errors import StudyError
from mixopt.pipelines.study.checks import check
from mixopt.pipelines.study.init_own import write_own_study_file
from mixopt.study.settings import Study, load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.study.test_plan_init import at, leaves

OWN = {"name", "domains", "trainer", "objective", "metrics"}  # what no default can know
TRAINERS = ("elsewhere", "python train.py {job}", "ours:train")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_value_that_it_shows_is_the_default_or_an_example(
    tmp_path: Path, trainer: str
) -> None:
    file = tmp_path / "mine.yaml"
    (tmp_path / "ours.py").write_text("def train(job, report): ...\n")
    write_own_study_file(file, trainer)
    shown, study = yaml.safe_load(file.read_text()), load_study(file)
    check(study, study.open_data())
    examples = {"proxy.tokens": "3.8B", "space.budget": "380B"}  # of 1.5T
    bare = Study(**{key: shown[key] for key in OWN}).model_dump(mode="json")
    read = study.model_dump(mode="json")
    keys = [key for key, _ in leaves(shown) if key.split(".")[0] not in OWN]
    assert len(keys) > 15
    for key in keys:
        if key in examples:
            assert at(shown, key) == examples[key]
        else:
            assert at(read, key) == at(bare, key)
    assert study.promote is None
    assert ("ray" in shown) is (trainer != "elsewhere")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_keys_that_it_only_mentions_are_valid_too(tmp_path: Path, trainer: str) -> None:
    file = tmp_path / "mine.yaml"
    for name in ("ours.py", "full.py"):
        (tmp_path / name).write_text("def train(job, report): ...\n")
    write_own_study_file(file, trainer)
    text = file.read_text()
    for was, now in (
        ("# promote: ", "promote: "),
        ("# guardrails: ", "guardrails: "),
        ("bounds: {}", "bounds: {web: [0.05, 0.6]}"),
        ("linear: []", "linear: [{weights: {web: 1, code: 1}, at_most: 1}]"),
        ("enqueue: []", "enqueue: [{web: 0.6, code: 0.4}]"),
    ):
        assert was in text
        text = text.replace(was, now)
    file.write_text(text)
    study = load_study(file)
    check(study, study.open_data())
    assert study.promote is not None
    assert study.promote.tokens == study.budget


def test_names_that_yaml_would_misread_are_quoted(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    domains = ("no=1k", "c: d=2k", "it's=3k", "tulu_v3.9=4k", "007=5k")
    write_own_study_file(file, "elsewhere", domains, ("gsm8k::tulu=higher", "loss", "y=lower"))
    study = load_study(file)
    assert list(study.open_data().domains) == ["no", "c: d", "it's", "tulu_v3.9", "007"]
    assert study.objective == dict.fromkeys(("gsm8k::tulu", "loss", "y"), 1.0)
    assert study.metrics == {"gsm8k::tulu": "higher", "loss": "lower", "y": "lower"}


def test_a_direction_of_a_metric_that_is_not_there_is_refused_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    write_own_study_file(file, "elsewhere", ("web=1T", "code=2T"), ("arc=higher",))
    file.write_text(file.read_text().replace("arc: higher", "arx: higher"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "arx" in text)
    study = load_study(file)
    with pytest.raises(StudyError, match=rf"mine\.yaml:{line}: metrics\.arx: .*mean 'arc'"):
        check(study, study.open_data())


def test_the_command_line_says_what_is_left_to_do(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "mine.yaml"
    result = run(
        "init", file, "--trainer", "elsewhere", "--domain", "web=1T", "--domain", "code=2T"
    )
    assert result.code == 0
    assert "Put your own into it: objective, metrics, proxy.tokens, space.budget" in result.out
    assert f"mixopt ask {file} --out next.csv" in result.out
    assert "the file is there already" in run("init", file, "--trainer", "elsewhere").err
    assert "--domain and --metric are for --trainer" in run("init", file, "--domain", "a=1").err


@pytest.mark.parametrize(
    ("trainer", "domains", "metrics", "message"),
    [
        ("elsewhere", ("web",), (), "'web' is none.*Write web=1.2T"),
        ("elsewhere", ("web=x", "code=1"), (), r"domains\.web"),
        ("elsewhere", ("web=1T",), (), "domains: must have at least 2 of them"),
        ("elsewhere", (), ("arc=up",), r"metrics\.arc: must be 'lower' or 'higher'"),
        ("elsewhere", (), ("=lower",), "Write accuracy/arc=higher"),
    ],
)
def test_what_cannot_be_read_writes_nothing(
    tmp_path: Path, trainer: str, domains: tuple[str, ...], metrics: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(StudyError, match=message):
        write_own_study_file(file, trainer, domains, metrics)
    assert not file.exists()
