"""`mixopt init --trainer` writes a study file for those who train by other means."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mixopt.core.errors import StudyError
from mixopt.pipelines.study.checks import check
from mixopt.pipelines.study.init.answers import Answers
from mixopt.pipelines.study.init.write import write_study_file
from mixopt.search import proposers
from mixopt.study.settings import Study, load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.study.init.commented import alternatives, at, leaves, write

OWN = {"name", "domains", "trainer", "objective", "metrics"}  # what no default can know
TRAINERS = ("elsewhere", "python train.py {job}", "ours:train")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_value_that_it_shows_is_the_default_or_an_example(
    tmp_path: Path, trainer: str
) -> None:
    file = tmp_path / "mine.yaml"
    (tmp_path / "ours.py").write_text("def train(job, report): ...\n")
    write_study_file(file, Answers(trainer=trainer))
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
def test_every_alternative_in_its_comments_holds(tmp_path: Path, trainer: str) -> None:
    file = tmp_path / "mine.yaml"
    (tmp_path / "ours.py").write_text("def train(job, report): ...\n")
    write_study_file(file, Answers(trainer=trainer))
    original, seen = load_study(file), []
    for instead, text in alternatives(file.read_text()):
        study = load_study(write(tmp_path / "other.yaml", text))
        check(study, study.open_data())
        assert study.model_dump(exclude={"name"}) != original.model_dump(exclude={"name"}), instead
        seen.append(instead.split("  # ")[0].rstrip())
    names = set(proposers.KNOWN) - proposers.NEED_TOKEN_LOSSES - {"bayes"}
    assert {f"proposer: {name}" for name in names} <= set(seen)
    assert {"bounds: {web: [0.4, 1]}", "params: 20M", "baseline: uniform"} <= set(seen)
    ways = [it for it in seen if it.startswith("promote: {trainer: ")]
    assert ways[-1] == "promote: {trainer: elsewhere, tokens: 380B}"
    assert len(ways) == (1 if trainer == "elsewhere" else 2)
    assert not [it for it in seen if it.split()[-1] in proposers.NEED_TOKEN_LOSSES]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_full_run_that_is_asked_for_is_the_trainers(tmp_path: Path, trainer: str) -> None:
    file = tmp_path / "mine.yaml"
    (tmp_path / "ours.py").write_text("def train(job, report): ...\n")
    write_study_file(file, Answers(trainer=trainer, budget="100B", promote=True))
    study = load_study(file)
    check(study, study.open_data())
    assert study.promote is not None
    assert (study.promote.trainer, study.promote.tokens) == (study.trainer, 10**11)
    others = [load_study(write(tmp_path / "o.yaml", t)) for _, t in alternatives(file.read_text())]
    assert any(other.promote is None for other in others)


def test_proposers_that_need_token_losses_are_known_without_an_import() -> None:
    need = {name for name in proposers.KNOWN if proposers.find(name).needs_token_losses}
    assert need == proposers.NEED_TOKEN_LOSSES


def test_names_that_yaml_would_misread_are_quoted(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    domains = ("no=1k", "c: d=2k", "it's=3k", "tulu_v3.9=4k", "007=5k")
    metrics = ("gsm8k::tulu=higher", "loss", "y=lower")
    write_study_file(file, Answers(trainer="elsewhere", domains=domains, metrics=metrics))
    study = load_study(file)
    assert list(study.open_data().domains) == ["no", "c: d", "it's", "tulu_v3.9", "007"]
    assert study.objective == dict.fromkeys(("gsm8k::tulu", "loss", "y"), 1.0)
    assert study.metrics == {"gsm8k::tulu": "higher", "loss": "lower", "y": "lower"}


def test_a_direction_of_a_metric_that_is_not_there_is_refused_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    answers = Answers(trainer="elsewhere", domains=("web=1T", "code=2T"), metrics=("arc=higher",))
    write_study_file(file, answers)
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
    assert "--domain: is for --trainer" in run("init", file, "--domain", "a=1").err


@pytest.mark.parametrize(
    ("trainer", "domains", "metrics", "message"),
    [
        ("elsewhere", ("web",), (), "'web' is none.*Write web=1.2T"),
        ("elsewhere", ("web=x", "code=1"), (), "--domain web: 'x' is not a finite token count"),
        ("elsewhere", ("web=1T",), (), "domains: must have at least 2 of them"),
        ("elsewhere", (), ("arc=up",), "--metric: arc: 'up' is neither lower nor higher"),
        ("elsewhere", (), ("=lower",), "Write accuracy/arc=higher"),
    ],
)
def test_what_cannot_be_read_writes_nothing(
    tmp_path: Path, trainer: str, domains: tuple[str, ...], metrics: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(StudyError, match=message):
        write_study_file(file, Answers(trainer=trainer, domains=domains, metrics=metrics))
    assert not file.exists()
