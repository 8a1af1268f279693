"""Settings that no training depends on may change between rounds; each round says what it used."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixopt.core.trials import State
from mixopt.corpus.shards import Corpus
from mixopt.io.token_losses import kept
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.search import propose, require_complete
from mixopt.pipelines.study.session import open_session
from mixopt.study.queries import search_trials
from mixopt.study.rounds import Round
from mixopt.study.settings import load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import change, ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def searched(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """The file of a study of three trials and a round of two."""
    file = write_study(
        tmp_path_factory.mktemp("rounds") / "study.yaml",
        text_corpus.path,
        objective={"notes": 1.0, "law": 1.0},
        search={"trials": 3, "repeats": 0, "rounds": 1, "batch": 2},
        mlflow={"enabled": False},
        promote=None,
    )
    run_study(file, step="search")
    return file


@pytest.fixture
def copy(searched: Path, tmp_path: Path) -> Path:
    """The study file of a copy to work on."""
    shutil.copytree(searched.parent, tmp_path / "copy")
    return tmp_path / "copy" / searched.name


def rounds_of(file: Path) -> dict[int, Round]:
    with open_session(file) as session:
        return session.ledger.rounds()


def asked_next(file: Path, number: int = 2) -> Round:
    with open_session(file) as session:
        return propose(session, search_trials(session.ledger.trials()), number)


def used(asked: Round) -> tuple[Any, ...]:
    return asked.proposer, asked.surrogate, len(asked.specs), dict(asked.weights)


@pytest.mark.slow
def test_a_round_uses_the_settings_of_its_time_and_says_so(copy: Path, run: Run) -> None:
    before = ledger_trials(copy)
    change(copy, "search", rounds=3, batch=1, proposer="random")
    change(copy, "objective", notes=3.0)
    change(copy, "proxy", recipe=load_recipe(copy) | {"checkpoint_seconds": 9, "micro_batches": 2})
    run_study(copy, step="search")
    trials = ledger_trials(copy)
    assert trials[: len(before)] == before
    assert Counter(t.spec.round for t in trials) == {0: 3, 1: 2, 2: 1, 3: 1}
    assert {t.state for t in trials} == {State.COMPLETE}
    equal, new = {"bpb/notes": 0.5, "bpb/law": 0.5}, {"bpb/notes": 0.75, "bpb/law": 0.25}
    assert {number: used(asked) for number, asked in rounds_of(copy).items()} == {
        1: ("bayes", "gp", 2, equal),
        2: ("random", None, 1, new),
        3: ("random", None, 1, new),
    }
    result = run("status", copy).out
    assert "round 1: bayes on gp, 2 trials, bpb/notes 0.5, bpb/law 0.5" in result
    assert "round 2 to 3: random, 1 trials, bpb/notes 0.75, bpb/law 0.25" in result
    page = Path(run("report", copy).out.strip()).read_text()
    assert re.search(r">2 to 3</td>\s*<td[^>]*>random</td>\s*<td[^>]*>–</td>", page)


def load_recipe(file: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(file.read_text())["proxy"]["recipe"]
    return recipe


def test_a_round_that_was_begun_goes_on_as_it_was_asked_for(copy: Path) -> None:
    asked = asked_next(copy)
    with open_session(copy) as session:
        session.ledger.keep_round(asked)  # and the driver is killed before the second was added
        session.ledger.add(asked.specs[0])
    change(copy, "search", rounds=2, batch=1, proposer="random")
    run_study(copy, step="search")
    assert [t.spec for t in ledger_trials(copy) if t.spec.round == 2] == list(asked.specs)


@pytest.mark.parametrize("proposer", ["bayes", "climb", "optuna", "pareto", "regmix"])
def test_values_follow_from_the_metrics_not_from_what_optuna_stored(
    proposer: str, copy: Path
) -> None:
    change(copy, "search", proposer=proposer)
    before = asked_next(copy)
    with sqlite3.connect(load_study(copy).home / "ledger.db") as ledger:
        assert ledger.execute("UPDATE trial_values SET value = -value").rowcount == 5
    assert asked_next(copy) == before


def test_trials_of_before_are_weighed_by_the_objective_of_now(
    searched: Path, copy: Path, run: Run
) -> None:
    change(copy, "objective", notes=0.0, code=1.0)  # of other metrics too: all are evaluated alike
    asked = asked_next(copy)
    assert dict(asked.weights) == {"bpb/law": 0.5, "bpb/code": 0.5}
    assert asked.specs != asked_next(searched).specs
    values = [(t.metrics["bpb/law"] + t.metrics["bpb/code"]) / 2 for t in ledger_trials(copy)]
    assert f"{min(values):.4f}" in run("status", copy).out


def test_a_proposer_that_needs_what_trials_did_not_keep_is_refused(copy: Path, run: Run) -> None:
    change(copy, "search", proposer="mixmin", rounds=2)
    trials = ledger_trials(copy)
    result = run("search", copy)
    assert result.code == 1
    assert "'mixmin' needs the loss of every token of notes, law" in " ".join(result.err.split())
    assert "5 of 5 trials did not keep it (0, 1, 2, 3, 4)" in " ".join(result.err.split())
    assert ledger_trials(copy) == trials
    assert kept(trial_folder(load_study(copy).home, 0)) == frozenset()
    change(copy, "search", rounds=1)  # it has nothing to propose
    assert run("search", copy).code == 0


def test_a_larger_batch_adds_nothing_to_rounds_that_were(copy: Path, run: Run) -> None:
    trials = ledger_trials(copy)
    change(copy, "search", batch=9)
    with open_session(copy) as session:
        require_complete(session)
    assert run("search", copy).code == 0
    assert ledger_trials(copy) == trials
