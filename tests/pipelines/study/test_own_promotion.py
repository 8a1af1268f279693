"""Full runs by a trainer of the user: promoted, shown, registered and exported as ours are."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mixopt.core.errors import StudyError, TrainingError
from mixopt.pipelines.study.export_model import export_model
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.plan_changes import change_notes
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.views.closing import promotion_table
from mixopt.study.champion import CHAMPION, read_decision
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.settings import load_study
from mixopt.study.trainings import proxy_fidelity
from tests.pipelines.study.test_own_trainer import ENDS, SCRIPT, write_own
from tests.pipelines.whole_study import slow

pytestmark = pytest.mark.xdist_group("ray")

FULL_RUN = """\
import json, pathlib, sys
job = json.load(open(sys.argv[1]))
assert job["role"] == "promote" and not job["domains"]["web"]["limit"], job
folder = pathlib.Path(job["folder"])
quality = .8 + .1 * job["mixture"]["maths"]
(folder / "checkpoint" / "shards").mkdir(parents=True, exist_ok=True)
(folder / "checkpoint" / "shards" / "0.bin").write_bytes(b"weights")
(folder / "checkpoint" / "config.json").write_text("{}")
progress = {"tokens": job["tokens"] // 2, "metrics": {"accuracy": quality / 2}}
(folder / "progress.jsonl").open("a").write(json.dumps(progress) + "\\n")
result = {"metrics": {"accuracy": quality}, "checkpoint": "checkpoint", "mixture": job["mixture"]}
"""
FULL_ENDS = '(folder / "result.json").write_text(json.dumps(result))\n'


def write_promoted(folder: Path, script: str, **changes: Any) -> Path:
    """A study without a corpus whose full run is by `script` too."""
    (folder / "full.py").write_text(script)
    promote = {"trainer": {"command": "{python} full.py {job}", "grace": 1}, "tokens": "100k"}
    return write_own(folder, SCRIPT + ENDS, **{"promote": promote, "mlflow": {}, **changes})


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """The file of a study that was run to its end."""
    file = write_promoted(tmp_path_factory.mktemp("promoted"), FULL_RUN + FULL_ENDS)
    run_study(file)
    return file


def test_the_full_run_is_measured_beside_its_prediction(promoted: Path) -> None:
    study = load_study(promoted)
    promotion, verdict = read_promotion(study.home), read_verdict(study.home)
    assert promotion is not None
    assert verdict is not None
    assert promotion.mixture.same_as(verdict.mixture)
    assert promotion.after["accuracy"] == pytest.approx(0.8 + 0.1 * verdict.mixture["maths"])
    assert promotion.tokens == 100_000
    assert [point.tokens for point in promotion.curve] == [50_000, 100_000]
    candidate = verdict.winner.predicted  # of a trial, which it stands beside
    assert candidate is not None
    assert promotion.predicted["accuracy"].mean == pytest.approx(-candidate.mean)
    assert promotion.predicted_of == proxy_fidelity(study, study.training_data())
    assert sorted(promotion.files) == ["config.json", "shards/0.bin"]
    table = io.StringIO()
    Console(file=table, width=100).print(promotion_table(promotion))
    assert "Trained by your own trainer, 100k tokens" in " ".join(table.getvalue().split())
    assert "accuracy" in table.getvalue()
    page = (study.home / "report.html").read_text()
    assert "Trained by your own trainer, 100k tokens" in page
    assert f"{promotion.after['accuracy']:.4f}" in page


def test_its_checkpoint_is_the_champion_in_the_registry(promoted: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    study = load_study(promoted)
    client = MlflowClient(tracking_uri=f"sqlite:///{study.home / 'mlflow.db'}")
    version = client.get_model_version_by_alias(study.name, CHAMPION)
    assert version.tags["mixopt.method"] == "own trainer"
    assert "Trained by your own trainer" in version.description
    promotion = read_promotion(study.home)
    assert promotion is not None
    decision = read_decision(study.home, promotion.key)
    assert decision is not None
    assert decision.alias == CHAMPION
    kept = Path(str(version.source).removeprefix("file://"))
    assert (kept / "shards" / "0.bin").read_bytes() == b"weights"
    assert json.loads((kept / "mixopt.json").read_text())["candidate"] == promotion.mixture_name


def test_it_is_exported_as_it_is_with_a_card(promoted: Path, tmp_path: Path) -> None:
    export_model(promoted, tmp_path / "out")
    assert (tmp_path / "out" / "shards" / "0.bin").read_bytes() == b"weights"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "accuracy" in card
    assert "library_name" not in card
    assert "Trained by your own trainer, 100k tokens, on the mixture" in card


@pytest.mark.slow
def test_it_is_trained_once_and_again_when_its_script_changes(promoted: Path) -> None:
    study = load_study(promoted)
    before = read_promotion(study.home)
    run_study(promoted)
    assert read_promotion(study.home) == before
    script = promoted.parent / "full.py"
    script.write_text("# another version\n" + script.read_text())
    run_study(promoted)
    after = read_promotion(study.home)
    assert before is not None
    assert after is not None
    assert after.id != before.id


def test_plan_counts_it(promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(promoted, slots=1)
    shown = " ".join(capsys.readouterr().out.split())
    assert "full run (promote.trainer)" in shown
    assert "100k" in shown
    assert (
        "Trainer of the full run (promote.trainer), looked at on this machine and not run:" in shown
    )
    assert "✓ full.py is there" in shown


def test_plan_says_what_becomes_of_changed_scripts_before_they_run(
    promoted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(promoted.parent, folder)
    study = load_study(folder / promoted.name)
    data = study.open_data()
    (note,) = change_notes(study, data)
    assert "has ended" in note
    assert "not trained again" in note
    for name in ("full.py", "train.py"):
        (folder / name).write_text((folder / name).read_text() + "\n")
    changed, full_run = change_notes(study, data)
    assert "trainer.files train.py: was" in changed
    assert "refuses that" in changed
    assert "A new full run begins, of 100k tokens" in full_run
    assert "They differ in promote.trainer (its files, command, version or settings)" in full_run
    with pytest.raises(StudyError, match="locked settings differ"):
        run_study(folder / promoted.name)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        slow(FULL_ENDS.replace("result)", '{"failure": "diverged"})'), "full-run"),
        ("sys.exit('no such data')", "no such data"),
    ],
)
def test_a_full_run_without_a_result_is_no_promotion(
    tmp_path: Path, ray_here: None, ends: str, message: str
) -> None:
    file = write_promoted(tmp_path, FULL_RUN + ends, mlflow={"enabled": False})
    with pytest.raises(TrainingError, match=message):
        run_study(file)
    home = load_study(file).home
    assert read_promotion(home) is None
    assert read_verdict(home) is not None  # what came before is kept
    (tmp_path / "full.py").write_text(FULL_RUN + FULL_ENDS)
    run_study(file)
    assert read_promotion(home) is not None


def test_a_result_that_is_corrected_is_promoted_without_training_again(
    tmp_path: Path, ray_here: None
) -> None:
    wrong = FULL_ENDS.replace("result)", '{**result, "metrics": {"acc": quality}})')
    file = write_promoted(tmp_path, FULL_RUN + wrong, mlflow={"enabled": False})
    with pytest.raises(TrainingError, match="lacks accuracy") as error:
        run_study(file)
    assert "the same command reads them again and trains nothing" in str(error.value)
    home = load_study(file).home
    assert read_promotion(home) is None
    (result,) = home.glob("promotion/*/full-run/result.json")
    output = result.with_name("output-1.log")
    study = load_study(file)
    assert "its result was refused" in change_notes(study, study.open_data())[-1]
    script = (tmp_path / "full.py").read_text()
    (tmp_path / "full.py").write_text(script.replace('"acc"', '"accuracy"'))
    (another,) = change_notes(study, study.open_data())
    assert "A new full run begins" in another
    assert "correct its result.json, and nothing is trained again" in another
    (tmp_path / "full.py").write_text(script)
    before = output.stat().st_mtime_ns
    result.write_text(result.read_text().replace('"acc"', '"accuracy"'))
    run_study(file)
    promotion = read_promotion(home)
    assert promotion is not None
    assert promotion.after["accuracy"] == json.loads(result.read_text())["metrics"]["accuracy"]
    assert [point.tokens for point in promotion.curve] == [50_000, 100_000]
    assert output.stat().st_mtime_ns == before
    assert [path.name for path in result.parent.glob("output-*.log")] == ["output-1.log"]


@pytest.mark.parametrize(
    ("promote", "message"),
    [
        ({"trainer": {"command": "train {job}"}}, "how many tokens"),
        ({"trainer": "elsewhere"}, "how many tokens"),
        ({"trainer": {"command": "train {job}"}, "tokens": 1, "upcycler": "sparse"}, "upcycler"),
        ({"tokens": 1, "params": 7}, "promote.trainer"),
        ({"tokens": 1}, "promote.trainer"),
        ({"trainer": {"command": "train", "files": ["gone.py"]}, "tokens": 1}, "gone.py"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, promote: dict[str, Any], message: str
) -> None:
    file = write_own(tmp_path, SCRIPT + ENDS, promote=promote)
    with pytest.raises(StudyError, match=message):
        run_study(file)
    assert not (tmp_path / "own").exists()
