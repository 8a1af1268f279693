"""A promotion that would begin anew beside another is said, by `plan` and before it trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Cost, Outcome, TrialResult
from mixopt.io import files, markers
from mixopt.io.full_checkpoints import checkpoint_path
from mixopt.pipelines.study.promote import promote
from mixopt.pipelines.study.promotion_folder import asked_folder, asked_of
from mixopt.pipelines.study.promotion_identity import keep_asked
from mixopt.pipelines.study.session import open_session
from mixopt.study.records import read_verdict
from mixopt.study.results import Verdict
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study, promotion_of
from tests.pipelines.made_runs import Run

pytestmark = pytest.mark.xdist_group("ray")
SEED, MOE = 600_000, 120_000  # tokens that are trained


def begun(study: Study, verdict: Verdict) -> Path:
    """The folder of the verdict's promotion: its seed has ended, its last training not."""
    assert study.promote is not None
    asked = asked_of(study, study.open_data(), study.promote, verdict.mixture, None)
    folder = asked_folder(study, asked)
    keep_asked(folder, asked)
    result = TrialResult({}, (), Cost(tokens=SEED))
    for stage in ("seed", "moe"):
        (folder / stage).mkdir()
        (folder / stage / "lock").touch()
    markers.write(folder / "seed", {"outcomes": [Outcome(result).to_json()]})
    checkpoint_path(folder / "moe", 9).mkdir(parents=True)
    markers.write(checkpoint_path(folder / "moe", 9), {"tokens": MOE}, {})
    return folder


def rewrite(study: Study, promote: str) -> None:
    text = study.path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("promote:"))
    study.path.write_text(text.replace(line, promote))


def noted(run: Run, study: Study) -> str:
    """What `plan` says of a new promotion."""
    result = run("plan", study.path, "--no-measure", "--json")
    assert result.code == 0, result.err
    return " ".join(note for note in json.loads(result.out)["notes"] if "begins" in note)


def test_changed_keys_are_named_with_the_folder_that_stays_and_what_it_has_trained(
    tmp_path: Path, run: Run, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished_study(tmp_path)
    verdict = read_verdict(study.home)
    assert verdict is not None
    folder = begun(study, verdict)
    assert noted(run, study) == ""  # it goes on

    before = study.path.read_text()
    rewrite(
        study,
        "promote: {tokens: 600k, recipe: {learning_rate: 0.001, precision: fp32}, merge: ties, "
        "resources: {cpus: 10000}}",
    )
    asks = (
        'A new promotion begins: promote.merge was not set, is "ties"; '
        'promote.recipe.learning_rate was 0.01, is 0.001; promote.recipe.precision was "auto", is '
        f'"fp32". The one before stays in {folder} '
    )
    then = "(interrupted, 720k tokens trained): with the earlier values it goes on from there."
    assert noted(run, study) == asks + then
    with open_session(study.path) as session, pytest.raises(TrainingError):
        promote(session, verdict)
    assert "".join((asks + then).split()) in "".join(capsys.readouterr().out.split())

    ended = promotion_of(verdict.mixture, id=folder.name)
    files.write_json(folder / "result.json", ended.to_json())
    then = (
        "(ended, 600k tokens trained): with the earlier values it counts, and nothing is trained."
    )
    assert noted(run, study) == asks + then
    study.path.write_text(before)
    assert noted(run, study) == ""


def test_of_another_mixture_nothing_can_be_set_back(tmp_path: Path, run: Run) -> None:
    study = finished_study(tmp_path)
    verdict = read_verdict(study.home)
    assert verdict is not None
    other = next(c for c in verdict.candidates if c.name != verdict.promoted)
    folder = begun(study, dataclasses.replace(verdict, promoted=other.name))
    assert noted(run, study) == (
        "A new promotion begins: the mixture of the verdict differs. The one before stays in "
        f"{folder} (interrupted, 720k tokens trained)."
    )


def test_a_trainer_in_the_place_of_our_upcycling_is_another_promotion(
    tmp_path: Path, run: Run
) -> None:
    study = finished_study(tmp_path)
    verdict = read_verdict(study.home)
    assert verdict is not None
    folder = begun(study, verdict)
    rewrite(study, "promote: {tokens: 600k, trainer: elsewhere}")
    assert load_study(study.path).promote is not None
    assert f"promote.trainer differs. The one before stays in {folder}" in noted(run, study)
