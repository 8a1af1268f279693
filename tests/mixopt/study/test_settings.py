"""The study file: what is left out has a value, what is wrong is named with its line and fix."""

import json
import re
from pathlib import Path

import pytest

from mixopt.core.counts import parse_tokens
from mixopt.core.errors import StudyError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.study.settings import Study, load_study
from mixopt.study.tasks import prepare_tasks

LEAST = "name: demo\ncorpus: corpus\nobjective:\n  law: 1\n"


def study_file(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "line",
    [
        "ledger: postgresql://anna:hun ter2@host/studies\n",
        "mlflow: {uri: 'http://anna:hun ter2@host:5000'}\n",
    ],
)
def test_a_url_with_spaces_is_refused_and_its_password_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(StudyError, match="write %20 for each") as caught:
        load_study(study_file(tmp_path, LEAST + line))
    assert "ter2" not in str(caught.value)


def test_a_study_of_three_lines_is_whole(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path, LEAST))
    assert study.home == tmp_path / "demo"
    assert study.corpus_path == tmp_path / "corpus"
    assert study.ledger_url == f"sqlite:///{tmp_path}/demo/ledger.db"
    assert study.promote is not None
    assert study.budget == study.promote.tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("600k", 600_000),
        ("1.5M", 1_500_000),
        ("20B", 20 * 10**9),
        ("6_000", 6000),
        ("2e6", 2 * 10**6),
    ],
)
def test_token_counts_may_be_written_short(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(
    ("addition", "line", "message"),
    [
        ("serch:\n  trials: 8\n", 5, "search"),  # an unknown key is answered with the nearest one
        ("search:\n  trials: many\n", 6, "trials"),
        ("search:\n  trials: 1\n", 6, "trials"),
        ("proxy:\n  model: {width: 65}\n", 6, "heads"),
        ("proxy:\n  recipe:\n    learning_rat: 1e-3\n", 7, "learning_rate"),
        ("proxy:\n  tokens: lots\n", 6, "600k"),
        ("select:\n  confidence: 2\n", 6, "confidence"),
        ("search:\n  pruner: {chance: 0.6}\n", 6, "chance"),
        ("search:\n  pruner: {startup_trials: 4}\n", 6, "startup_trials"),
        ("search:\n  pruner: {patience: 3}\n", 6, "startup_trials"),
        ("proxy: {recipe: {evaluations: 1}}\nsearch:\n  pruner: {}\n", 6, "evaluations"),
        ("search:\n  pruner: {warmup: 0.9}\n", 5, "warm-up of 0.9"),
        ("name: again\n", 5, "name"),
    ],
)
def test_an_error_names_the_line_and_the_key(
    tmp_path: Path, addition: str, line: int, message: str
) -> None:
    path = study_file(tmp_path, LEAST + addition)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert f"study.yaml:{line}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (LEAST.replace("law: 1", "law: .nan"), "objective.law"),
        (LEAST.replace("law: 1", "law: .inf"), "objective.law"),
        (LEAST.replace("law: 1", "law: 'nan'"), "objective.law"),
        (LEAST + "space:\n  bounds: {law: [.nan, 1]}\n", "space.bounds.law.0"),
        (LEAST + "space: {max_epochs: .inf}\n", "space.max_epochs"),
        (LEAST + "space: {budget: 1e400}\n", "space.budget"),
        (LEAST + "space: {linear: [{weights: {law: .nan}, at_most: 0.5}]}\n", "weights.law"),
        (LEAST + "space: {linear: [{weights: {law: 1}, at_most: -.inf}]}\n", "0.at_most"),
        (LEAST + "space: {kl_penalty: .nan}\n", "space.kl_penalty"),
        (LEAST + "proxy: {tokens: 1e400k}\n", "proxy.tokens"),
        (LEAST + "proxy: {recipe: {gradient_clip: .inf}}\n", "proxy.recipe.gradient_clip"),
        (LEAST + "proxy: {model: {rope_theta: .nan}}\n", "proxy.model.rope_theta"),
        (LEAST + "ray: {cpus_per_trial: .inf}\n", "ray.cpus_per_trial"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_with_its_line_and_key(
    tmp_path: Path, text: str, place: str
) -> None:
    with pytest.raises(StudyError, match="finite") as caught:
        load_study(study_file(tmp_path, text))
    assert re.search(rf"study\.yaml:\d+: \S*{re.escape(place)}: ", str(caught.value))


def test_an_objective_without_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="every weight is 0"):
        load_study(study_file(tmp_path, LEAST.replace("law: 1", "law: 0")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"absent\.yaml"):
        load_study(tmp_path / "absent.yaml")


def study_with_tasks(folder: Path, corpus: Corpus, objective: str, tasks: str) -> Study:
    text = f"name: demo\ncorpus: {corpus.path}\nobjective: {{{objective}}}\ntasks: {{{tasks}}}\n"
    return load_study(study_file(folder, text))


def write_task(folder: Path, *answers: str) -> None:
    lines = [json.dumps({"context": "the court", "continuation": answer}) for answer in answers]
    (folder / "exam.jsonl").write_text("\n".join(lines))


def test_tasks_are_found_beside_the_study_file(tmp_path: Path, text_corpus: Corpus) -> None:
    write_task(tmp_path, " holds", " applies")
    tasks = "exam: exam.jsonl, one: {path: exam.jsonl, limit: 1}"
    study = study_with_tasks(tmp_path, text_corpus, "task/exam: 1", tasks)
    study.open_data()
    found = prepare_tasks(study, text_corpus, tmp_path / "tasks")
    assert {name: len(Questions.read(path)) for name, path in found.items()} == {
        "exam": 2,
        "one": 1,
    }


def test_an_objective_may_weigh_only_metrics_that_there_are(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    write_task(tmp_path, " holds")
    unknown = study_with_tasks(tmp_path, text_corpus, "task/exams: 1", "exam: exam.jsonl")
    with pytest.raises(StudyError, match=r"no task's metric 'task/exams'.*task/exam"):
        unknown.open_data()
    accuracy = study_with_tasks(tmp_path, text_corpus, "accuracy/exam: -1", "exam: exam.jsonl")
    with pytest.raises(StudyError, match=r"task 'exam' has no choices"):
        prepare_tasks(accuracy, text_corpus, tmp_path / "tasks")


def test_a_task_whose_name_is_no_name_is_refused(tmp_path: Path, text_corpus: Corpus) -> None:
    with pytest.raises(StudyError, match=r"study.yaml:4.*not 'a/b'"):
        study_with_tasks(tmp_path, text_corpus, "law: 1", "a/b: exam.jsonl")


@pytest.mark.parametrize("section", ["proxy", "promote"])
def test_a_vocabulary_of_ones_own_is_refused(tmp_path: Path, section: str) -> None:
    text = LEAST + f"{section}:\n  model:\n    vocab_size: 100\n"
    with pytest.raises(StudyError, match=rf"study.yaml:7: {section}.model.vocab_size: .*corpus"):
        load_study(study_file(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_experts", -1),
        ("balance_coefficient", -0.1),
        ("z_coefficient", float("nan")),
        ("rope_theta", 0.0),
        ("vocab_size", -1),
    ],
)
def test_a_shape_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(StudyError, match=f"^{name}: must be"):
        ModelConfig(**{name: value})
