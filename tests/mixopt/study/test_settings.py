"""The study file: what is left out has a value, what is wrong is named with its line and fix."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.study.settings import Study, digest, freeze, load_study, parse_tokens
from tests.conftest import write_sources

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
    ("addition", "line", "said"),
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
    tmp_path: Path, addition: str, line: int, said: str
) -> None:
    path = study_file(tmp_path, LEAST + addition)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert f"study.yaml:{line}" in str(caught.value)
    assert said in str(caught.value)


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


def frozen(folder: Path, corpus: Corpus, more: str = "") -> None:
    text = f"name: demo\ncorpus: {corpus.path}\nobjective:\n  notes: 1\n{more}"
    freeze(load_study(study_file(folder, text)), corpus)


@pytest.mark.parametrize(
    "more",
    [
        "search:\n  rounds: 9\n",
        "select:\n  seeds: 9\n",
        "ray:\n  cpus_per_trial: 2\n",
        "mlflow:\n  experiment: other\n",
        "promote:\n  seed_tokens: 1k\n",
        "search: {surrogate: gp, proposer: random, batch: 9}\n",
        "select: {rule: successive-rejects, confidence: 0.6}\n",
        "proxy:\n  recipe: {micro_batches: 2, checkpoint_seconds: 5}\n",
    ],
)
def test_what_alters_no_training_may_change_later(
    tmp_path: Path, text_corpus: Corpus, more: str
) -> None:
    frozen(tmp_path, text_corpus)
    frozen(tmp_path, text_corpus, more=more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("seed: 1\n", "seed: was 0, is 1"),
        ("proxy:\n  tokens: 1M\n", "proxy.tokens: was 600000, is 1000000"),
        ("promote:\n  tokens: 1M\n", "budget: was 600000, is 1000000"),
        ("search:\n  trials: 9\n", "search.trials: was 16, is 9"),
    ],
)
def test_what_alters_trainings_is_refused_with_the_difference(
    tmp_path: Path, text_corpus: Corpus, more: str, said: str
) -> None:
    frozen(tmp_path, text_corpus)
    with pytest.raises(StudyError, match=said):
        frozen(tmp_path, text_corpus, more=more)


def weighing(folder: Path, corpus: Corpus, objective: str, share: str = "0.06") -> None:
    text = f"name: demo\ncorpus: {corpus.path}\nobjective: {{{objective}}}\n"
    text += f"proxy:\n  recipe: {{evaluation_share: {share}}}\n"
    freeze(load_study(study_file(folder, text)), corpus)


def test_weights_may_change_but_not_what_is_weighed(tmp_path: Path, text_corpus: Corpus) -> None:
    weighing(tmp_path, text_corpus, "notes: 1, law: 1")
    weighing(tmp_path, text_corpus, "bpb/law: 3, notes: 1, code: 0")
    for other in ("notes: 1", "notes: 1, law: 0", "notes: 1, law: 1, code: 1"):
        with pytest.raises(StudyError, match=r"objective: .* evaluated depends on which"):
            weighing(tmp_path, text_corpus, other)


def test_metrics_may_change_where_all_are_evaluated_alike(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    weighing(tmp_path, text_corpus, "notes: 1", share="null")
    weighing(tmp_path, text_corpus, "law: 1, code: 1", share="null")


def test_a_folder_that_keeps_the_objective_itself_is_bound_to_its_metrics(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    weighing(tmp_path, text_corpus, "notes: 1, law: 2")
    path = tmp_path / "demo" / "study.json"
    before = json.loads(path.read_text())
    del before["metrics"]
    earlier = {"objective.notes": 1.0, "objective.law": 2.0, "search.batch": 4}
    path.write_text(json.dumps(before | earlier))
    weighing(tmp_path, text_corpus, "notes: 2, law: 1")
    with pytest.raises(StudyError, match=r"weighs bpb/notes, at first it weighed bpb/law, bpb/no"):
        weighing(tmp_path, text_corpus, "notes: 1")


def harmless(folder: Path, corpus: Corpus, seconds: int) -> Study:
    recipe = f"{{micro_batches: 2, checkpoint_seconds: {seconds}}}"
    text = f"name: demo\ncorpus: {corpus.path}\nobjective: {{notes: 1}}\n"
    return load_study(study_file(folder, f"{text}proxy:\n  recipe: {recipe}\n"))


def test_settings_that_change_no_result_are_no_part_of_a_trainings_identity(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    hashes = {harmless(tmp_path, text_corpus, s).training_hash(text_corpus) for s in (5, 9)}
    (tmp_path / "demo.yaml").write_text(LEAST)
    hashes.add(load_study(tmp_path / "demo.yaml").training_hash(text_corpus))
    assert len(hashes) == 1


def test_a_folder_whose_identity_was_made_of_the_whole_recipe_keeps_it(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    study = harmless(tmp_path, text_corpus, 5)
    whole = {
        "model": dataclasses.asdict(study.proxy_model(text_corpus)),
        "recipe": dataclasses.asdict(study.proxy.recipe),
        "limits": study.token_limits(text_corpus),
    }
    freeze(study, text_corpus)
    path = study.home / "study.json"
    earlier = {"proxy.recipe.micro_batches": 2, "proxy.recipe.checkpoint_seconds": 5.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | earlier))
    for seconds in (5, 9):
        again = harmless(tmp_path, text_corpus, seconds)
        freeze(again, text_corpus)
        assert again.training_hash(text_corpus) == digest(whole)


def test_other_text_in_the_same_corpus_folder_is_refused(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    frozen(tmp_path, text_corpus)
    other = build_corpus(write_sources(tmp_path / "text", seed=1), tmp_path / "other")
    with pytest.raises(StudyError, match="corpus hash: was"):
        frozen(tmp_path, other)


def test_a_study_begun_before_a_setting_existed_goes_on_with_what_it_meant_then(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    frozen(tmp_path, text_corpus)
    file = tmp_path / "demo" / "study.json"
    settings = json.loads(file.read_text())
    del settings["space.kl_penalty"]
    file.write_text(json.dumps(settings))
    frozen(tmp_path, text_corpus)
    with pytest.raises(StudyError, match=r"space.kl_penalty: was 0\.0, is 0\.1"):
        frozen(tmp_path, text_corpus, more="space: {kl_penalty: 0.1}\n")


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
    study.open_corpus()
    found = study.prepare_tasks(text_corpus, tmp_path / "tasks")
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
        unknown.open_corpus()
    accuracy = study_with_tasks(tmp_path, text_corpus, "accuracy/exam: -1", "exam: exam.jsonl")
    with pytest.raises(StudyError, match=r"task 'exam' has no choices"):
        accuracy.prepare_tasks(text_corpus, tmp_path / "tasks")


def test_a_task_whose_name_is_no_name_is_refused(tmp_path: Path, text_corpus: Corpus) -> None:
    with pytest.raises(StudyError, match=r"study.yaml:4.*not 'a/b'"):
        study_with_tasks(tmp_path, text_corpus, "law: 1", "a/b: exam.jsonl")


def test_other_questions_are_another_study(tmp_path: Path, text_corpus: Corpus) -> None:
    write_task(tmp_path, " holds")
    study = study_with_tasks(tmp_path, text_corpus, "law: 1", "exam: exam.jsonl")
    freeze(study, text_corpus)
    before = study.training_hash(text_corpus)
    freeze(study, text_corpus)
    write_task(tmp_path, " holds", " applies")
    assert study.training_hash(text_corpus) != before
    with pytest.raises(StudyError, match=r"tasks.exam hash: was"):
        freeze(study, text_corpus)


def test_a_folder_begun_before_there_were_tasks_goes_on(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    more = "proxy:\n  recipe: {evaluation_share: null}\n"
    frozen(tmp_path, text_corpus, more)
    path = tmp_path / "demo" / "study.json"
    before = json.loads(path.read_text())
    assert not [key for key in before if key.startswith("tasks")]
    del before["proxy.recipe.evaluation_share"]
    path.write_text(json.dumps(before))
    frozen(tmp_path, text_corpus, more)
    with pytest.raises(StudyError, match=r"evaluation_share: was None, is 0.06"):
        frozen(tmp_path, text_corpus)


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
