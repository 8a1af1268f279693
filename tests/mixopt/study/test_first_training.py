"""An own trainer may change until a training is recorded, whenever the change is interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.trials import Cost, Failure, Outcome, Role, TrialResult, TrialSpec
from mixopt.io import markers
from mixopt.io.trial_files import trial_folder
from mixopt.study import identity
from mixopt.study.first_training import take_changed_trainer
from mixopt.study.ledger import Ledger
from mixopt.study.locked import LOCKED, lock_settings
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import proxy_fidelity, study_binding

FILE = """\
name: own
domains: {web: 1.2T, code: 300B}
trainer: {elsewhere: true, version: VERSION}
objective: {loss: 1}
proxy: {tokens: 1B}
search: {trials: 4}
"""


def study(folder: Path, version: str, more: str = "") -> Study:
    folder.mkdir(exist_ok=True)
    file = folder / "own.yaml"
    file.write_text(FILE.replace("VERSION", version) + more)
    return load_study(file)


def opened(at: Study) -> Ledger:
    """The study's ledger, as a session opens it."""
    data = at.open_data()
    take_changed_trainer(at, data)
    lock_settings(at, data)
    owner = identity.claim(at.home, study_binding(at, data))
    return Ledger.open(at.ledger_url, at.name, at.mixture_objective(), owner)


def begun(folder: Path) -> Study:
    """A study of version `a` with one trial that is being trained."""
    first = study(folder, "a")
    ledger, data = opened(first), first.open_data()
    ledger.add(TrialSpec(data.natural, proxy_fidelity(first, data), 0, Role.DESIGN))
    ledger.start(0)
    ledger.close()
    attempt = trial_folder(first.home, 0)
    attempt.mkdir(parents=True)
    (attempt / "checkpoint.pt").write_text("half of it")
    return first


def locked_version(at: Study) -> str:
    return json.loads((at.home / LOCKED).read_text())["trainer.version"]


def test_the_trial_stays_and_its_attempt_is_set_aside(tmp_path: Path) -> None:
    begun(tmp_path)
    later = study(tmp_path, "b")
    message = take_changed_trainer(later, later.open_data())
    assert "trainer.version: was 'a', is 'b'" in message
    assert str(later.home / "earlier" / "1") in message
    assert (later.home / "earlier/1/0000/checkpoint.pt").exists()
    assert not trial_folder(later.home, 0).exists()
    (trial,) = opened(later).trials()
    assert (trial.number, trial.attempts, trial.ended) == (0, 1, False)
    assert take_changed_trainer(later, later.open_data()) == ""


@pytest.mark.parametrize("then", ["b", "a"])
def test_a_change_that_was_interrupted_is_completed_or_taken_back(
    tmp_path: Path, then: str
) -> None:
    first = begun(tmp_path)
    later = study(tmp_path, "b")
    owner = identity.read(first.home)
    assert owner is not None
    assert Ledger.rebind(
        later.ledger_url, later.name, owner, study_binding(later, later.open_data())
    )
    assert locked_version(later) == "a"  # killed before it was written
    last = study(tmp_path, then)
    (trial,) = opened(last).trials()
    assert not trial.ended
    assert locked_version(last) == then


def test_a_copy_of_the_folder_changes_alone(tmp_path: Path) -> None:
    first = begun(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    other = study(tmp_path / "two", "b")
    assert len(opened(other).trials()) == 1
    assert locked_version(other) == "b"
    mine, theirs = identity.read(first.home), identity.read(other.home)
    assert mine is not None
    assert theirs is not None
    assert mine.id != theirs.id
    assert len(opened(study(tmp_path / "one", "a")).trials()) == 1


@pytest.mark.parametrize("recorded", ["in the ledger", "in its folder", "as a failure"])
def test_a_recorded_training_locks_the_trainer(tmp_path: Path, recorded: str) -> None:
    first = begun(tmp_path)
    if recorded == "in its folder":
        markers.write(trial_folder(first.home, 0), {"identity": "x", "outcomes": []})
    else:
        ledger = opened(first)
        if recorded == "as a failure":
            ledger.fail(0, Failure.DIVERGED, "loss of NaN")
        else:
            ledger.complete(0, TrialResult({"loss": 1.0}, (), Cost()))
        ledger.close()
    with pytest.raises(StudyError, match=r"trainer\.version: was 'a', is 'b'"):
        opened(study(tmp_path, "b"))


def test_other_settings_are_locked_at_once(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(StudyError, match="seed: was 0, is 1"):
        opened(study(tmp_path, "b", "seed: 1\n"))
    assert locked_version(study(tmp_path, "a")) == "a"


def test_what_is_replaced_is_kept_by_the_ledger(tmp_path: Path) -> None:
    first = begun(tmp_path)
    ledger = opened(first)
    ledger.complete(0, TrialResult({"loss": 1.0}, (), Cost()))
    ledger.replace(0, Outcome(TrialResult({"loss": 2.0}, (), Cost())))
    ledger.replace(0, Outcome(None, Failure.DIVERGED, "it was NaN"))
    ledger.close()
    trial = opened(first).trial(0)
    assert (trial.complete, trial.failure, trial.message) == (False, Failure.DIVERGED, "it was NaN")
    metrics = [it.result.metrics["loss"] for it in trial.replaced if it.result is not None]
    assert metrics == [1.0, 2.0]
