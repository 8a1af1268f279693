"""Mixtures that a study file enqueues are tried: once, before the next round, like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role, Trial
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.checks import check
from mixopt.pipelines.study.plan_steps import steps
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.search import require_complete
from mixopt.pipelines.study.session import open_session
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.settings import Study, load_study
from tests.pipelines.whole_study import change, ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")

FIRST = {"law": 0.7, "code": 0.2, "prose": 0.1}
SECOND = {"law": 0.1, "code": 0.2, "prose": 0.7}


def study_with(folder: Path, corpus: Corpus, enqueue: list[Any], **space: Any) -> Path:
    return write_study(
        folder / "study.yaml",
        corpus.path,
        space=space,
        search={"trials": 3, "repeats": 0, "rounds": 1, "batch": 1, "enqueue": enqueue},
        select={"seeds": 2, "looks": 2},
        mlflow={"enabled": False},
        promote=None,
    )


def enqueued(trials: list[Trial]) -> list[tuple[Mixture, int]]:
    return [(t.spec.mixture, t.spec.round) for t in trials if t.spec.role is Role.ENQUEUED]


def asked(file: Path, corpus: Corpus) -> tuple[Study, list[Mixture]]:
    study = load_study(file)
    return study, enqueued_mixtures(study, study.mixture_space(corpus))


def test_weights_and_files_of_several_are_taken_each_once(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    file = study_with(tmp_path, text_corpus, [FIRST, "next.csv", {"law": "70%", **FIRST}])
    rows = "run,law,code,prose\np1,0.1,0.2,0.7\np2,0.7,0.2,0.1\n"
    (tmp_path / "next.csv").write_text(rows)
    study, found = asked(file, text_corpus)
    assert [mixture.as_dict() for mixture in found] == [FIRST, SECOND]
    plan = {step.name: step.runs for step in steps(study, text_corpus)}
    assert plan["enqueued mixtures"] == 2


def test_natural_and_uniform_are_words(text_corpus: Corpus, tmp_path: Path) -> None:
    _, found = asked(study_with(tmp_path, text_corpus, ["natural", "uniform"]), text_corpus)
    assert found == [text_corpus.natural, Mixture.uniform(text_corpus.domains)]


@pytest.mark.parametrize(
    ("enqueue", "message"),
    [
        ([FIRST, {"law": 0.9, "code": 0.1}], r":\d+: search\.enqueue\.1: .*law: at its upper"),
        ([{"law": 0.3, "prose": 0.3}], r":\d+: search\.enqueue\.0: the weights sum to 0\.6"),
        ([{"lav": 1}], r":\d+: search\.enqueue\.0\.lav: .*mean 'law'"),
        ([3], r":\d+: search\.enqueue\.0: 3 is no mixture"),
        (["next.csv"], r"^\S*/next\.csv: mixture 2: the mixture lies outside the study's space"),
        (["none.csv"], r"^\S*/none\.csv: cannot be read"),
    ],
)
def test_a_wrong_one_is_refused_before_anything_is_trained(
    text_corpus: Corpus, tmp_path: Path, enqueue: list[Any], message: str
) -> None:
    (tmp_path / "next.csv").write_text("law,code,prose\n0.5,0.2,0.3\n0.9,0.1,0.0\n")
    file = study_with(tmp_path, text_corpus, enqueue, bounds={"law": [0, 0.8]})
    with pytest.raises(StudyError, match=message):
        check(load_study(file), text_corpus)


@pytest.mark.slow
def test_they_run_before_the_next_round_and_are_recorded_once(
    text_corpus: Corpus, tmp_path: Path, ray_here: None
) -> None:
    file = study_with(tmp_path, text_corpus, [FIRST, text_corpus.natural.as_dict()])
    run_study(file, step="search")
    trials = ledger_trials(file)
    # natural is in the design; the other one was there before the round was proposed
    assert enqueued(trials) == [(Mixture.of(FIRST), 0)]
    assert [t.spec.role for t in trials] == [Role.DESIGN] * 3 + [Role.ENQUEUED, Role.SEARCH]
    assert all(t.complete for t in trials)

    change(file, "search", enqueue=[FIRST, SECOND])
    with open_session(file) as session, pytest.raises(StudyError, match="1 of its 5 trials"):
        require_complete(session)
    change(file, "search", rounds=2)
    for _ in range(2):  # the second run finds nothing to do
        run_study(file, step="search")
        trials = ledger_trials(file)
        assert enqueued(trials) == [(Mixture.of(FIRST), 0), (Mixture.of(SECOND), 1)]
        assert [t.spec.role for t in trials[4:]] == [Role.SEARCH, Role.ENQUEUED, Role.SEARCH]
    with open_session(file) as session:
        require_complete(session)
    change(file, "search", enqueue=[])  # what ran stays, and nothing is missing
    run_study(file, step="search")
    assert len(ledger_trials(file)) == 7
