"""A trial that lost its worker too often is held until a person retries it or gives it up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Failure, State, TrialSpec
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CHECKPOINT
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.trials import add_missing, run_trials
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import RECIPE, STEP, write_study

pytestmark = pytest.mark.xdist_group("ray")


def kill_the_first_worker_with_a_checkpoint(home: Path) -> threading.Thread:
    def kill() -> None:
        while not (begun := list(home.glob(f"cohorts/*/{CHECKPOINT}"))):
            time.sleep(0.01)
        os.kill(json.loads((begun[0].parent / "lock").read_text())["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_cohort_that_lost_its_worker_too_often_is_held_until_a_person_decides(
    text_corpus: Corpus, tmp_path: Path, run: Run
) -> None:
    file = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        proxy={"tokens": 400 * STEP, "recipe": RECIPE | {"checkpoint_seconds": 0.1}},
        ray={"cohort": 2, "attempts": 1, "cpus_per_trial": 2},
        mlflow={"enabled": False},
    )
    with open_session(file) as session:
        natural = session.corpus.natural
        specs = [TrialSpec(natural, session.fidelity, seed) for seed in range(2)]
        trials = add_missing(session.ledger, session.space, specs)
        killer = kill_the_first_worker_with_a_checkpoint(session.home)
        with pytest.raises(TrainingError, match=rf"mixopt retry {file} 0 1") as lost:
            run_trials(session, "swarm", trials)
        killer.join()
        assert ".err" in str(lost.value)
        again = add_missing(session.ledger, session.space, specs)
        assert [(t.held, t.ended) for t in again] == [(True, False)] * 2
        with pytest.raises(TrainingError, match="lost its worker"):  # at once: nothing trains
            run_trials(session, "swarm", again)

    shown = run("status", file).out
    assert "trial 0 held" in shown
    assert "trial 1 held" in shown
    assert "trial 7 is not open" in run("retry", file, "7").err
    assert run("fail", file, "0").code == 0
    assert run("retry", file, "1").code == 0
    assert "trial 0 is not open" in run("fail", file, "0").err
    assert "held" not in run("status", file).out

    with open_session(file) as session:
        trials = add_missing(session.ledger, session.space, specs)
        given_up, trained = run_trials(session, "swarm", trials)
    assert (given_up.state, given_up.failure) == (State.FAILED, Failure.GIVEN_UP)
    assert trained.complete


def test_a_study_that_has_not_begun_has_no_trial_to_decide_on(
    text_corpus: Corpus, tmp_path: Path, run: Run
) -> None:
    file = write_study(tmp_path / "study.yaml", text_corpus.path)
    result = run("fail", file, "0")
    assert result.code == 1
    assert f"has not begun. Run `mixopt run {file}` first." in " ".join(result.err.split())
