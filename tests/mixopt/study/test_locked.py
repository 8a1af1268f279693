"""Locked settings: what trainings depend on may not change in a study that has begun."""

import json
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus
from mixopt.study.locked import lock_settings
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import training_hash
from tests.conftest import write_sources


def study_of(folder: Path, corpus: Corpus, more: str = "", objective: str = "notes: 1") -> Study:
    path = folder / "study.yaml"
    path.write_text(f"name: demo\ncorpus: {corpus.path}\nobjective: {{{objective}}}\n{more}")
    return load_study(path)


def lock(folder: Path, corpus: Corpus, more: str = "", objective: str = "notes: 1") -> None:
    lock_settings(study_of(folder, corpus, more, objective), corpus)


@pytest.mark.parametrize(
    "more",
    [
        "search:\n  rounds: 9\n",
        "select:\n  seeds: 9\n",
        "baseline: uniform\n",
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
    lock(tmp_path, text_corpus)
    lock(tmp_path, text_corpus, more=more)


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        ("seed: 1\n", "seed: was 0, is 1"),
        ("proxy:\n  tokens: 1M\n", "proxy.tokens: was 600000, is 1000000"),
        ("promote:\n  tokens: 1M\n", "budget: was 600000, is 1000000"),
        ("search:\n  trials: 9\n", "search.trials: was 16, is 9"),
    ],
)
def test_what_alters_trainings_is_refused_with_the_difference(
    tmp_path: Path, text_corpus: Corpus, more: str, difference: str
) -> None:
    lock(tmp_path, text_corpus)
    with pytest.raises(StudyError, match=difference):
        lock(tmp_path, text_corpus, more=more)


def test_weights_may_change_but_not_what_is_weighed(tmp_path: Path, text_corpus: Corpus) -> None:
    lock(tmp_path, text_corpus, objective="notes: 1, law: 1")
    lock(tmp_path, text_corpus, objective="bpb/law: 3, notes: 1, code: 0")
    for other in ("notes: 1", "notes: 1, law: 0", "notes: 1, law: 1, code: 1"):
        with pytest.raises(StudyError, match=r"objective: .* evaluated depends on which"):
            lock(tmp_path, text_corpus, objective=other)


def test_metrics_may_change_where_all_are_evaluated_alike(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    alike = "proxy: {recipe: {evaluation_share: null}}\n"
    lock(tmp_path, text_corpus, alike, objective="notes: 1")
    lock(tmp_path, text_corpus, alike, objective="law: 1, code: 1")


def test_settings_that_change_no_result_are_no_part_of_a_trainings_identity(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    recipes = ("", *(f"micro_batches: 2, checkpoint_seconds: {seconds}" for seconds in (5, 9)))
    studies = [
        study_of(tmp_path, text_corpus, f"proxy: {{recipe: {{{recipe}}}}}\n") for recipe in recipes
    ]
    assert len({training_hash(study, text_corpus) for study in studies}) == 1


def test_other_text_in_the_same_corpus_folder_is_refused(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    lock(tmp_path, text_corpus)
    other = build_corpus(write_sources(tmp_path / "text", seed=1), tmp_path / "other")
    with pytest.raises(StudyError, match="corpus hash: was"):
        lock(tmp_path, other)


def test_other_questions_are_another_study(tmp_path: Path, text_corpus: Corpus) -> None:
    def write_task(*answers: str) -> None:
        lines = [json.dumps({"context": "the court", "continuation": it}) for it in answers]
        (tmp_path / "exam.jsonl").write_text("\n".join(lines))

    write_task(" holds")
    study = study_of(tmp_path, text_corpus, "tasks: {exam: exam.jsonl}\n")
    lock_settings(study, text_corpus)
    before = training_hash(study, text_corpus)
    lock_settings(study, text_corpus)
    write_task(" holds", " applies")
    assert training_hash(study, text_corpus) != before
    with pytest.raises(StudyError, match=r"tasks.exam hash: was"):
        lock_settings(study, text_corpus)


def test_the_first_tasks_of_a_study_that_has_begun_are_refused(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    (tmp_path / "exam.jsonl").write_text(json.dumps({"context": "a", "continuation": " b"}))
    lock(tmp_path, text_corpus)
    with pytest.raises(StudyError, match=r"tasks.exam hash: was not set, is"):
        lock(tmp_path, text_corpus, "tasks: {exam: exam.jsonl}\n")
