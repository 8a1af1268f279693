"""A study with tasks: its trainings are evaluated on them, and the objective may weigh them."""

import json
from pathlib import Path

import pytest

from mixopt.core.errors import CorpusError, StudyError
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.search import design_specs
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.trials import add_missing
from mixopt.proxies.training import train
from tests.pipelines.whole_study import write_study


def questions(folder: Path) -> None:
    lines = [
        {"context": f"law {n}: the court", "choices": [" holds", " yield", " river"], "answer": 0}
        for n in range(20)
    ]
    (folder / "exam.jsonl").write_text("\n".join(map(json.dumps, lines)))


def study(folder: Path, corpus: Corpus, **settings: object) -> Path:
    return write_study(
        folder / "study.yaml",
        corpus.path,
        tasks={"exam": "exam.jsonl"},
        mlflow={"enabled": False},
        promote=None,
        **settings,
    )


def test_a_trial_is_scored_on_the_studys_tasks(text_corpus: Corpus, tmp_path: Path) -> None:
    questions(tmp_path)
    file = study(tmp_path, text_corpus, objective={"task/exam": 1.0, "accuracy/exam": -1.0})
    with open_session(file) as session:
        specs = design_specs(session.study, session.space, session.fidelity)
        trial = add_missing(session.ledger, session.space, specs)[0]
        work = session.work(trial)
        identity = work.identity
        (outcome,) = train(work.job, Path(work.folder), threads=1, device="cpu")
        assert outcome.result is not None, outcome.message
        metrics = outcome.result.metrics
        assert {"task/exam", "accuracy/exam", "bpb/notes"} <= set(metrics)
        assert 0 <= metrics["accuracy/exam"] <= 1
        assert {"task/exam", "accuracy/exam"} <= set(outcome.result.curve[0].metrics)
        value = session.objective.value(metrics)  # of the small study's notes, too
        expected = metrics["bpb/notes"] + metrics["task/exam"] - metrics["accuracy/exam"]
        assert value == pytest.approx(expected / 3)
    plain = tmp_path / "plain"
    plain.mkdir()
    without = write_study(
        plain / "study.yaml", text_corpus.path, mlflow={"enabled": False}, promote=None
    )
    with open_session(without) as session:
        assert session.work(trial).identity != identity


def test_a_line_that_is_no_question_stops_the_study_before_it_begins(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    questions(tmp_path)
    path = tmp_path / "exam.jsonl"
    path.write_text(path.read_text() + '\n{"context": "the court"}\n')
    with (
        pytest.raises(CorpusError, match=r"exam.jsonl:21: has neither"),
        open_session(study(tmp_path, text_corpus)),
    ):
        pass


def test_mixmin_refuses_an_objective_of_tasks(text_corpus: Corpus, tmp_path: Path) -> None:
    questions(tmp_path)
    file = study(tmp_path, text_corpus, objective={"task/exam": 1.0}, search={"proposer": "mixmin"})
    with (
        pytest.raises(StudyError, match=r"objective: .*'mixmin' cannot weigh 'task/exam'"),
        open_session(file),
    ):
        pass
