"""Held-out trials: predicted once, hashed before they run, scored alike on every page."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mixopt
from mixopt.core.errors import StudyError
from mixopt.core.trials import Role
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.elsewhere import ask_trials
from mixopt.pipelines.study.plan_steps import planned_flops, steps
from mixopt.pipelines.study.run import run_study, sync_study
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.views.closing import print_closing
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.study.holdout import FILE, file_digest, read_holdout
from mixopt.study.settings import load_study
from tests.pipelines.study.test_elsewhere import FILE as STUDY
from tests.pipelines.study.test_elsewhere import asked, told, trained
from tests.pipelines.whole_study import change, ledger_trials, shown_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose search is told; nothing is predicted yet."""
    path = tmp_path_factory.mktemp("searched") / "ift.yaml"
    path.write_text(STUDY.replace("repeats: 1", "repeats: 2, holdout: 5"))
    told(path, trained(asked(path)))
    ask_trials(path, 100, path.parent / "round.csv")
    rows = trained(_read(path.parent / "round.csv"))
    told(path, rows)
    return path


def _read(table: Path) -> Any:
    import polars as pl

    return pl.read_csv(table)


@pytest.fixture
def file(searched: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(searched.parent, tmp_path / "copy")
    return tmp_path / "copy" / "ift.yaml"


def home(file: Path) -> Path:
    return load_study(file).home


def shown(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What status prints, in one line."""
    capsys.readouterr()
    show_status(file)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_they_are_handed_out_after_the_search_and_scored(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not (home(file) / FILE).exists()
    frame = asked(file)
    assert frame["role"].unique().to_list() == ["holdout"]
    assert frame["seed"].n_unique() == len(frame) == 5  # each with a fresh seed of its own
    predictions = (home(file) / FILE).read_bytes()
    assert "None of them has a result yet" in shown(file, capsys)
    told(file, trained(frame))
    assert asked(file)["role"].unique().to_list() == ["select"]
    assert (home(file) / FILE).read_bytes() == predictions

    trials = ledger_trials(file)
    held = [t for t in trials if t.spec.role is Role.HOLDOUT]
    others = [t for t in trials if t.spec.role is not Role.HOLDOUT]
    assert all(not t.spec.mixture.same_as(other.spec.mixture) for t in held for other in others)
    study = mixopt.open_study(file)
    score = study.holdout
    assert score is not None
    assert score.n == score.asked == 5
    assert study.model.trials == [t for t in others if t.spec.role is not Role.SELECT]
    words = shown(file, capsys)
    assert f"rank correlation {score.spearman:.2f} (n = 5, 90 % interval" in words
    assert "ceiling over the search's mixtures" in words
    assert f"{score.inside} of 5 inside the 90 % interval of one run with a fresh seed" in words
    assert f"mean absolute error {score.mae:.4f}" in words
    page = re.sub(r"\s+", " ", write_report(study.settings).read_text())
    assert f"mean absolute error {score.mae:.4f}" in page
    assert ">Held-out trials</h2>" in page


def test_without_repeats_they_share_the_seed_that_intervals_are_for(tmp_path: Path) -> None:
    path = tmp_path / "ift.yaml"
    path.write_text(STUDY.replace("repeats: 1, rounds: 1", "repeats: 0, rounds: 0, holdout: 4"))
    told(path, trained(asked(path)))
    assert asked(path)["seed"].unique().to_list() == [0]
    assert read_holdout(home(path), None).scatter is None


def test_a_driver_killed_before_the_hash_was_kept_predicts_nothing_anew(
    file: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin" / "ift.yaml"
    shutil.copytree(file.parent, twin.parent)
    asked(twin)
    # the file that a killed driver left: with another number, to see which one counts
    left = json.loads((home(twin) / FILE).read_text())
    left["trials"][0]["predicted"]["mean"] = -0.123
    (home(file) / FILE).write_text(json.dumps(left))
    asked(file)
    assert json.loads((home(file) / FILE).read_text()) == left
    with open_session(file) as session:
        assert session.ledger.holdout() == file_digest(home(file))


def test_a_driver_killed_between_two_trials_adds_the_others(file: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / "ift.yaml"
    shutil.copytree(file.parent, twin.parent)
    whole = asked(twin)
    shutil.copy(home(twin) / FILE, home(file) / FILE)
    with open_session(file) as session:
        session.ledger.keep_holdout(file_digest(home(file)))
        for held in read_holdout(home(file), None).trials[:2]:
            session.ledger.add(held.spec)
    assert asked(file).equals(whole)


def test_predictions_that_were_changed_are_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = asked(file)
    told(file, trained(frame))
    path = home(file) / FILE
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(StudyError, match=r"holdout\.json: was changed after it was written"):
        asked(file)
    with pytest.raises(StudyError, match=r"holdout\.json: was changed after"):
        run_study(file, step="select")
    assert "are not scored" in shown(file, capsys)
    assert "was changed after it was written" in write_report(load_study(file)).read_text()
    with pytest.raises(StudyError, match="was changed"):
        _ = mixopt.open_study(file).holdout


def test_predictions_for_other_weights_are_told_as_such_everywhere(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "loss": 1 - row["accuracy"]} for row in trained(asked(file))]
    told(file, rows)
    note = "accuracy 1 (higher is better): its weights were changed since."
    assert note not in shown(file, capsys)
    text = file.read_text()
    file.write_text(text.replace("objective: {accuracy: 1}", "objective: {accuracy: 1, loss: 1}"))
    assert note in shown(file, capsys)
    with open_session(file) as session:
        console = Console(file=io.StringIO(), width=1000)
        print_closing(session.study, session.ledger, session.space.domains, console)
    assert isinstance(console.file, io.StringIO)
    assert note in console.file.getvalue()


def test_another_number_is_refused_once_they_are_predicted(file: Path) -> None:
    asked(file)
    for other in (0, 6):
        file.write_text(file.read_text().replace("holdout: 5", f"holdout: {other}"))
        with pytest.raises(StudyError, match=r"search\.holdout: 5 held-out trials were predicted"):
            asked(file)
        file.write_text(file.read_text().replace(f"holdout: {other}", "holdout: 5"))
    asked(file)


def test_a_search_that_goes_on_learns_nothing_from_them(file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain" / "ift.yaml"
    shutil.copytree(file.parent, plain.parent)
    plain.write_text(plain.read_text().replace(", holdout: 5", ""))
    told(file, trained(asked(file)))
    proposed = []
    for path in (file, plain):
        path.write_text(path.read_text().replace("rounds: 1", "rounds: 2"))
        proposed.append(asked(path).drop("trial"))
    assert proposed[0]["role"].unique().to_list() == ["search"]
    assert proposed[0].equals(proposed[1])


def test_too_few_are_refused(file: Path) -> None:
    file.write_text(file.read_text().replace("holdout: 5", "holdout: 3"))
    with pytest.raises(StudyError, match="3 held-out trials show no rank correlation; take 4"):
        load_study(file)


@pytest.mark.slow
def test_proxies_are_held_out_too(text_corpus: Corpus, tmp_path: Path, ray_here: None) -> None:
    path = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        search={"trials": 4, "repeats": 1, "rounds": 0, "holdout": 4},
        promote=None,
        mlflow={"enabled": True},
    )
    study = load_study(path)
    plan = {step.name: step.runs for step in steps(study, text_corpus)}
    assert plan["held-out trials"] == 4
    run_study(path, step="search")
    trials = ledger_trials(path)
    assert [t.spec.role for t in trials[-4:]] == [Role.HOLDOUT] * 4
    assert all(t.complete for t in trials)
    spent = sum(t.result.cost.flops for t in trials if t.result is not None)
    assert spent == pytest.approx(planned_flops(study, text_corpus, "search"), rel=0.1)
    score = mixopt.open_study(path).holdout
    assert score is not None
    for database in ("", "another.db"):  # shown while it ran, and rebuilt
        if database:
            change(path, "mlflow", uri=f"sqlite:///{tmp_path}/{database}")
            sync_study(path)
            study = load_study(path)
        (run,) = RunStore.open(study).runs({"mixopt.kind": "study"})
        assert run.data.tags["mixopt.holdout"] == file_digest(study.home)
        lines = holdout_lines(
            study.home, file_digest(study.home), trials, study.mixture_objective()
        )
        for line in lines:
            assert verbatim(line) in run.data.tags["mlflow.note.content"]
        assert len(shown_trials(study)) == len(trials)
