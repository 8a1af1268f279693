"""`mixopt status`: what really runs, how far it is, and the same as JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Failure, Role, TrialSpec
from mixopt.io import locks, markers, training_log
from mixopt.io.full_checkpoints import checkpoint_path, resumed_tokens
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.open_full_run import open_full_run
from mixopt.pipelines.study.standing import INTERRUPTED, read_standing
from mixopt.study.progress import Progress, write_progress
from mixopt.study.settings import Study
from mixopt.study.watched import Kind, Remark, Watched
from tests.pipelines.finished_study import (
    FIDELITY,
    TOKENS,
    finished_study,
    open_ledger,
    write_study,
)
from tests.pipelines.finished_study import run as trained
from tests.pipelines.made_runs import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("finished"))


def searching(folder: Path) -> Study:
    """A study in its design: three trials complete (two are repeats), one begun, one failed."""
    study = write_study(folder)
    ledger = open_ledger(study)
    natural = Mixture.natural(TOKENS)
    for seed, role in ((0, Role.DESIGN), (1, Role.REPEAT), (2, Role.REPEAT)):
        trained(study, ledger, TrialSpec(natural, FIDELITY, seed, role))
    uniform = Mixture.uniform(TOKENS)
    ledger.start(ledger.add(TrialSpec(uniform, FIDELITY, 0)).number)
    failed = ledger.add(TrialSpec(uniform, FIDELITY, 9)).number
    ledger.fail(failed, Failure.DIVERGED, "the loss was inf at step 3")
    ledger.close()
    return study


def test_a_trial_runs_only_while_a_worker_holds_it(tmp_path: Path) -> None:
    study = searching(tmp_path)
    assert read_standing(study.path).states[3] == INTERRUPTED
    with locks.hold(study.home / "driver.lock", "the study"):
        assert read_standing(study.path).states[3] == "waiting"  # begun by an earlier driver
        with locks.hold(trial_folder(study.home, 3) / "lock", "trial 3"):
            assert read_standing(study.path).states[3] == "running"


def test_the_best_so_far_has_an_interval_and_failures_their_reasons(
    tmp_path: Path, run: Run
) -> None:
    study = searching(tmp_path)
    values = json.loads(run("status", study.path, "--json").out)
    low, high = values["best"]["interval_90"]
    assert low < values["best"]["objective"] < high
    assert values["failures"] == [
        {"trial": 4, "failure": "diverged", "message": "the loss was inf at step 3"}
    ]
    assert values["trials"] | {"complete": 3, "failed": 1, INTERRUPTED: 1} == values["trials"]
    shown = run("status", study.path).out
    assert f"between {low:.4f} and {high:.4f}" in " ".join(shown.split())
    assert "trial 4 diverged: the loss was inf at step 3" in shown
    assert f"Next: mixopt run {study.path}" in shown


def test_repeats_that_run_are_named_instead_of_asked_for(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path)
    ledger = open_ledger(study)
    natural = Mixture.natural(TOKENS)
    trained(study, ledger, TrialSpec(natural, FIDELITY, 0))
    before = " ".join(run("status", study.path).out.split())
    repeats = [ledger.add(TrialSpec(natural, FIDELITY, s, Role.REPEAT)).number for s in (1, 2)]
    ledger.start(repeats[0])
    said = "no mixture was run with several seeds yet, so what a seed does is not known"
    both = " ".join(run("status", study.path).out.split())
    ledger.start(repeats[1])
    ledger.fail(repeats[1], Failure.DIVERGED, "the loss was inf at step 3")
    one = " ".join(run("status", study.path).out.split())
    ledger.fail(repeats[0], Failure.DIVERGED, "the loss was inf at step 3")
    ledger.close()
    none = " ".join(run("status", study.path).out.split())
    assert f"{said} (2 repeats of the baseline are to come)" in before
    assert f"{said} (2 repeats of the baseline are under way)" in both
    assert f"{said} (1 of 2 repeats of the baseline is under way)" in one
    assert "(2 repeats of the baseline ended, but fewer than two of its runs are complete)" in none
    assert "would tell" not in before + both + one + none


def test_the_driver_says_its_stage_and_the_time_left(tmp_path: Path, run: Run) -> None:
    study = searching(tmp_path)
    progress = Progress("round 1 of 2", 3, 4, 2e9, 8e9, 90.0, time.time())
    write_progress(study.home, progress)
    assert "round 1 of 2" not in run("status", study.path).out  # of a driver that is gone
    with locks.hold(study.home / "driver.lock", "the study"):
        shown = run("status", study.path).out
        values = json.loads(run("status", study.path, "--json").out)
    assert "Stage: round 1 of 2, 3 of 4 trainings ended; 25% of what" in shown
    assert "about 1.5 min left" in shown
    assert (values["stage"], values["seconds_left"]) == ("round 1 of 2", 90.0)
    assert values["driver"].startswith(f"process {os.getpid()} on ")
    assert values["spent"]["planned_flops"] == 8e9


def test_an_interrupted_full_run_stands_beside_the_last_with_what_a_resume_goes_on_from(
    finished: Study, run: Run
) -> None:
    seed, moe = (finished.home / "promotion" / "newer" / name for name in ("seed", "moe"))
    for stage in (seed, moe):
        stage.mkdir(parents=True)
        (stage / "lock").touch()
    (seed / "done.json").write_text("{}")
    shown = run("status", finished.path).out
    Watched((), (Remark(100, Kind.RISE, "it gets worse"),)).write(moe.parent)
    assert "! it gets worse" in run("status", finished.path).out
    assert "(the last full run that ended)" in shown
    assert "Full run newer is interrupted: seed ended, moe has just begun" in shown
    for step in (4, 6):
        checkpoint = checkpoint_path(moe, step)
        checkpoint.mkdir(parents=True)
        (checkpoint / "piece").write_text("parameters")
        markers.write(checkpoint, {"tokens": 1000 * step}, markers.all_described(checkpoint))
        training_log.append(moe, {"step": step + 1, "tokens": 1000 * step + 1000})
    assert "moe goes on from 6k tokens" in run("status", finished.path).out
    with locks.hold(moe / "lock", "moe"):
        values = json.loads(run("status", finished.path, "--json").out)["full_run"]
        assert "moe 7k tokens trained" in run("status", finished.path).out
    assert (values["stages"], values["training"]) == ({"seed": None, "moe": 7000}, ["moe"])
    (checkpoint_path(moe, 6) / "piece").write_text("cut")
    assert "moe goes on from 4k tokens" in run("status", finished.path).out


def test_of_several_full_runs_the_one_that_was_worked_on_last_is_shown(tmp_path: Path) -> None:
    home = finished_study(tmp_path).home
    ended = (home / "promotion" / "result.json").stat().st_mtime
    for name, at in (("newer", 20), ("put-back", 30)):  # whose folder is the older one
        lock = home / "promotion" / name / "moe" / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        os.utime(lock, times=(ended + at, ended + at))
    os.utime(home / "promotion" / "put-back", times=(ended + 10, ended + 10))
    found = open_full_run(home)
    assert found is not None
    assert found.id == "put-back"
    later = (ended + 40, ended + 40)  # with the settings of the one that ended, `run` counts it
    os.utime(home / "promotion" / "result.json", times=later)
    assert open_full_run(home) is None


def test_older_checkpoints_do_not_name_their_tokens(tmp_path: Path) -> None:
    checkpoint_path(tmp_path, 6).mkdir(parents=True)
    markers.write(checkpoint_path(tmp_path, 6), {"step": 6}, {})
    assert resumed_tokens(tmp_path) == 0
    training_log.append(tmp_path, {"step": 8, "tokens": 8000})
    assert resumed_tokens(tmp_path) == 6000


def test_a_study_that_has_not_begun_says_so_in_json_too(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, name="fresh")
    values = json.loads(run("status", study.path, "--json").out)
    assert (values["begun"], values["stage"]) == (False, "not begun")
    assert values["next"] == f"mixopt run {study.path}"


def test_trials_and_status_are_one_json_object_each(finished: Study, run: Run) -> None:
    rows = json.loads(run("trials", finished.path, "--json").out)["trials"]
    values = json.loads(run("status", finished.path, "--json").out)
    assert len(rows) == sum(values["trials"].values())
    assert values["verdict"]["selected"]
    assert values["promotion"]["mixture"] == values["verdict"]["selected"]


def test_a_plan_that_measures_nothing_has_no_times(finished: Study, run: Run) -> None:
    values = json.loads(run("plan", finished.path, "--no-measure", "--json").out)
    assert values["steps"][0]["step"] == "initial design"
    assert {step["wall_seconds"] for step in values["steps"]} == {None}
    assert values["total"]["flops"] == pytest.approx(sum(s["flops"] for s in values["steps"]))
    shown = run("plan", finished.path, "--no-measure").out
    assert "Nothing was measured" in shown
    assert "wall" not in shown.split("in all")[0]
