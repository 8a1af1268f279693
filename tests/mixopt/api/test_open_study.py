"""`mixopt.open_study` shows a study as it stands, disturbs nobody and writes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mixopt
from mixopt.api.plots import StudyPlots
from mixopt.api.study import OpenStudy
from mixopt.core.errors import MixtureError, StudyError, SurrogateError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Role, TrialSpec
from mixopt.io import locks
from mixopt.io.trial_files import trial_folder
from mixopt.study.settings import Study
from tests.pipelines.finished_study import (
    FIDELITY,
    TOKENS,
    finished_study,
    open_ledger,
    run,
    write_study,
)

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
LOOK = """
import json, sys, mixopt
study = mixopt.open_study(sys.argv[1])
natural = study.space.natural.as_dict()
print(json.dumps([len(study.trials), len(study.curves), study.predict(natural).columns]))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def study(finished: Study) -> OpenStudy:
    return mixopt.open_study(finished.path)


def files_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def look_at_all(study: OpenStudy) -> None:
    assert study.trials.height
    assert study.curves.height
    study.predict(study.trials)
    study.optimum()
    for name in (name for name in vars(StudyPlots) if not name.startswith("_")):
        assert getattr(study.plots, name)().data, name


def test_looking_at_all_of_a_study_writes_nothing_while_a_driver_holds_its_lock(
    finished: Study,
) -> None:
    with locks.hold(finished.home / "driver.lock", "study tiny"):
        before = files_of(finished.path.parent)
        look_at_all(mixopt.open_study(finished.path))
        assert files_of(finished.path.parent) == before


def test_a_study_on_a_read_only_disk_is_opened(finished: Study, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished.path.parent, folder)
    command = ["unshare", "-rm", "sh", "-c", READ_ONLY, str(folder)]
    if not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("no mount of one's own here")
    refused = subprocess.run([*command, "touch", folder / "x"], capture_output=True)
    assert refused.returncode != 0
    done = subprocess.run(
        [*command, sys.executable, "-c", LOOK, folder / "study.yaml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    trials, points, columns = json.loads(done.stdout)
    assert (trials, points) == (23, 22 * 5)
    assert columns[-2:] == ["objective_mean", "objective_std"]


def test_a_running_study_shows_what_has_ended_and_the_curves_of_what_runs(tmp_path: Path) -> None:
    settings = write_study(tmp_path)
    ledger = open_ledger(settings)
    mixture = mixopt.Mixture.uniform(TOKENS)
    run(settings, ledger, TrialSpec(mixture, FIDELITY, 0))
    number = ledger.add(TrialSpec(mixture, FIDELITY, 1)).number
    ledger.start(number)
    folder = trial_folder(settings.home, number)
    folder.mkdir(parents=True)
    point = {"step": 40, "tokens": 80_000, "metrics": {"bpb/descriptions": 3.5}}
    (folder / "curve.jsonl").write_text(json.dumps(point) + "\n")

    study = mixopt.open_study(settings.path)
    assert study.trials["state"].to_list() == ["complete", "running"]
    last = study.curves.filter(trial=number)
    assert last.select("step", "tokens", "objective").rows() == [(40, 80_000, 3.5)]
    assert (study.verdict, study.promotion) == (None, None)
    ledger.close()


def test_a_study_that_has_not_begun_or_learned_anything_says_so(tmp_path: Path) -> None:
    settings = write_study(tmp_path)
    open_ledger(settings).close()
    study = mixopt.open_study(settings.path)
    with pytest.raises(SurrogateError, match="no trial is complete yet"):
        study.predict(mixopt.Mixture.uniform(TOKENS))
    shutil.rmtree(settings.home)
    with pytest.raises(StudyError, match="has not begun"):
        mixopt.open_study(settings.path)


def test_predictions_are_the_surrogates_with_the_deviation_of_one_run(study: OpenStudy) -> None:
    weights = study.trials.select(pl.col("^mixture\\..*$")).to_numpy()
    prediction = study.surrogate().predict(weights)
    found = study.predict(study.trials)
    assert found.columns == [
        "bpb/descriptions_mean",
        "bpb/descriptions_std",
        "objective_mean",
        "objective_std",
    ]
    np.testing.assert_allclose(found["objective_mean"], prediction.mean[:, 0])
    std = np.hypot(prediction.std[:, 0], np.nan_to_num(prediction.noise[0]))
    np.testing.assert_allclose(found["objective_std"], std)


def test_mixtures_are_taken_as_users_hold_them(study: OpenStudy) -> None:
    weights = {"docstrings": 0.5, "web": 0.5}
    mixture = mixopt.Mixture.exact({name: weights.get(name, 0.0) for name in sorted(TOKENS)})
    frame = pl.DataFrame([{name: weights.get(name, 0.0) for name in TOKENS}])
    found = [study.predict(it) for it in (weights, mixture, [mixture, weights], frame)]
    assert [len(it) for it in found] == [1, 1, 2, 1]
    for it in found:
        np.testing.assert_allclose(it.row(0), found[0].row(0))
    with pytest.raises(MixtureError, match=r"no domain 'wed'.* Choose from arithmetic"):
        study.predict({"wed": 1.0})
    with pytest.raises(MixtureError, match="no column 'licences'"):
        study.predict(frame.drop("licences"))
    with pytest.raises(MixtureError, match=r"sum to 0\.5, not 1"):
        study.predict({"web": 0.5})


def test_a_surrogate_that_is_fitted_to_other_trials_changes_nothing_here(study: OpenStudy) -> None:
    natural = mixopt.Mixture.natural(TOKENS)
    before = study.predict(natural)
    mine = study.surrogate()
    other = [t for t in study.snapshot.trials if t.spec.role is not Role.SELECT][:6]
    mine.fit(TrialTable.of(other, ["bpb/descriptions"]))
    assert mine.predict(natural.array[None]).mean[0, 0] != before["objective_mean"][0]
    assert study.predict(natural).equals(before)
    assert mixopt.open_study(study.settings.path).predict(natural).equals(before)


def test_the_optimum_lies_in_the_studys_space(study: OpenStudy) -> None:
    found = study.optimum()
    assert study.space.contains(found.mixture)
    assert found.mean < study.predict(study.space.natural)["objective_mean"][0]


def test_curves_end_with_what_the_trials_measured(study: OpenStudy) -> None:
    ends = study.curves.group_by("trial", maintain_order=True).last()
    done = study.trials.filter(pl.col("state") == "complete")
    assert ends["trial"].to_list() == done["trial"].to_list()
    np.testing.assert_allclose(ends["objective"], done["objective"])


def test_the_verdicts_surrogate_speaks_and_before_one_the_studys_own(finished: Study) -> None:
    study = mixopt.open_study(finished.path)
    assert study.surrogate().name == study.surrogate_name == "gp"
    undecided = OpenStudy(replace(study.snapshot, verdict=None))
    assert undecided.surrogate_name == undecided.model.choice.name


def test_candidates_and_differences_are_those_of_the_verdict(finished: Study) -> None:
    study = mixopt.open_study(finished.path)
    verdict = study.verdict
    assert verdict is not None
    assert study.candidates["candidate"].to_list() == [c.name for c in verdict.candidates]
    winner = study.candidates.row(by_predicate=pl.col("selected"), named=True)
    assert winner["candidate"] == verdict.promoted
    assert winner["difference"] == verdict.winner.difference
    assert winner["low"] <= winner["difference"] <= winner["high"] < 0
    objective = study.differences.filter(
        pl.col("metric") == "bpb/descriptions", pl.col("candidate") == verdict.promoted
    ).row(0, named=True)
    assert objective["difference"] == pytest.approx(winner["difference"])
    assert objective["better"]
    assert set(study.differences["candidate"]) == {c.name for c in verdict.candidates[1:]}


def test_before_a_verdict_both_are_empty(tmp_path: Path) -> None:
    study = mixopt.open_study(write_study(tmp_path).path)
    assert study.candidates.is_empty()
    assert study.differences.is_empty()
