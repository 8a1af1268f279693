"""Studies by a trainer of the user's own: the same trials, ledger and policies as the proxies'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixopt.core.errors import CorpusError, TrainingError
from mixopt.core.trials import Failure, State
from mixopt.io.trial_files import read_curve, trial_folder
from mixopt.pipelines.study.run import run_study
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import ledger_trials

pytestmark = pytest.mark.xdist_group("ray")

SCRIPT = """\
import json, sys
job = json.load(open(sys.argv[1]))
folder, mixture = job["folder"], job["mixture"]
quality = .5 + .2 * mixture["maths"] + .1 * mixture["code"] + job["seed"] % 7 / 1000
print("training on", mixture)
with open(folder + "/progress.jsonl", "a") as progress:
    for part in (.5, 1):
        line = {"tokens": int(part * job["tokens"]), "metrics": {"accuracy": part * quality}}
        progress.write(json.dumps(line) + "\\n")
"""
ENDS = 'json.dump({"metrics": {"accuracy": quality}}, open(folder + "/result.json", "w"))\n'


def write_own(folder: Path, script: str, **changes: Any) -> Path:
    """A study without a corpus, trained by `script`."""
    (folder / "train.py").write_text(script)
    settings = {
        "name": "own",
        "domains": {"web": "1.2T", "code": "300B", "maths": "50B"},
        "trainer": {"command": "{python} train.py {job}", "grace": 1},
        "objective": {"accuracy": 1},
        "metrics": {"accuracy": "higher"},
        "proxy": {"tokens": "1k"},
        "space": {"budget": "100B"},
        "search": {"trials": 3, "repeats": 0, "rounds": 0, "surrogate": "linear"},
        "select": {"seeds": 2},
        "mlflow": {"enabled": False},
        "ray": {"address": "local", "attempts": 2},
        **changes,
    }
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def test_a_command_trains_a_study_from_design_to_verdict(tmp_path: Path, ray_here: None) -> None:
    file = write_own(tmp_path, SCRIPT + ENDS)
    run_study(file)
    study = load_study(file)
    verdict = read_verdict(study.home)
    assert verdict is not None
    assert verdict.improved
    trials = ledger_trials(study)
    assert all(trial.state is State.COMPLETE for trial in trials)
    curve = read_curve(study.home, trials[0])
    assert [point.tokens for point in curve] == [500, 1000]
    folder = trial_folder(study.home, 0)
    assert "training on" in (folder / "output-1.log").read_text()
    job = json.loads((folder / "job.json").read_text())
    assert job["mixture"] == trials[0].spec.mixture.as_dict()
    assert job["domains"]["web"] == {"tokens": 1_200_000_000_000, "path": None, "limit": 12_000}
    spent = (folder / "attempts.json").read_text()
    run_study(file)
    assert (folder / "attempts.json").read_text() == spent  # nothing is trained again


def test_one_that_diverges_is_no_score(tmp_path: Path, ray_here: None) -> None:
    ends = ENDS.replace("quality}", "float('nan') if mixture['maths'] > .3 else quality}")
    file = write_own(tmp_path, SCRIPT + ends, search={"trials": 6, "repeats": 0, "rounds": 0})
    run_study(file, step="search")
    failed = [t for t in ledger_trials(load_study(file)) if t.state is State.FAILED]
    assert failed
    assert all(trial.failure is Failure.DIVERGED for trial in failed)
    assert all(trial.spec.mixture["maths"] > 0.3 for trial in failed)


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        ("", TrainingError, r"result\.json"),
        (ENDS.replace("accuracy", "loss"), TrainingError, "accuracy"),
        pytest.param(
            ENDS + "sys.exit('no data')", TrainingError, "no data", marks=pytest.mark.slow
        ),
        pytest.param("sys.exit(65)", CorpusError, "65", marks=pytest.mark.slow),
    ],
)
def test_what_is_no_result_stops_the_study(
    tmp_path: Path, ray_here: None, ends: str, error: type[Exception], message: str
) -> None:
    file = write_own(tmp_path, SCRIPT + ends)
    with pytest.raises(error, match=message):
        run_study(file, step="search")
    assert not any(trial.ended for trial in ledger_trials(load_study(file)))


@pytest.mark.slow
def test_a_trainer_may_be_corrected_until_a_training_is_recorded(
    tmp_path: Path, ray_here: None, run: Run
) -> None:
    file = write_own(tmp_path, SCRIPT)  # leaves no result.json
    assert run("search", file).code == 1
    shown = " ".join(run("status", file).out.split())
    assert "Stopped by an error at 20" in shown
    assert "result.json" in shown
    (tmp_path / "train.py").write_text(SCRIPT + ENDS)
    result = run("search", file)
    assert result.code == 0
    assert "no training is recorded yet" in result.out
    assert "trainer.files train.py: was" in result.out
    home = load_study(file).home
    assert list(home.glob("earlier/1/*/job.json"))  # of those that began before the error
    assert json.loads((home / "trials/0000/job.json").read_text())["attempt"] == 1
    assert "Stopped" not in run("status", file).out
    (tmp_path / "train.py").write_text(SCRIPT + ENDS + "\n")
    refused = run("search", file)
    assert refused.code == 1
    assert "locked settings differ" in refused.err
