"""MLflow shows what the ledger holds: once, completely, and as it is now."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mlflow
import pytest

from mixopt.core.trials import Outcome, Role, State
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.mlflow_store import metric_name
from mixopt.pipelines.views.mlflow.run_names import trial_name
from mixopt.pipelines.views.reliability import reliability_line
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.study.champion import ChampionDecision
from mixopt.study.queries import best_trial
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study, open_ledger, write_study
from tests.pipelines.views.mlflow.tracked import client, runs_of, tracker_of, trials_of


@pytest.fixture(scope="module")
def shown(database: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study that was synced once."""
    study = finished_study(tmp_path_factory.mktemp("study"), "shown")
    assert tracker_of(study).sync(trials_of(study))
    return study


def test_every_trial_of_the_ledger_is_one_child_run_of_the_study(shown: Study) -> None:
    [parent] = runs_of(shown, "study")
    children = runs_of(shown, "trial")
    trials = trials_of(shown)
    assert {int(r.data.tags["mixopt.trial"]) for r in children} == {t.number for t in trials}
    assert len(children) == len(trials)
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    for run in children:
        trial = trials[int(run.data.tags["mixopt.trial"])]
        assert run.info.status == ("FINISHED" if trial.state is State.COMPLETE else "FAILED")
        assert run.info.run_name == trial_name(trial, shown.mixture_objective())


def test_a_child_run_holds_mixture_metrics_and_cost(shown: Study) -> None:
    trial = trials_of(shown)[0]
    run = next(r for r in runs_of(shown, "trial") if r.data.tags["mixopt.trial"] == "0")
    assert trial.result is not None
    for domain, weight in trial.spec.mixture.as_dict().items():
        assert float(run.data.params[f"mixture.{domain}"]) == pytest.approx(weight, abs=1e-6)
    for name, value in trial.metrics.items():
        assert run.data.metrics[name] == pytest.approx(value)
    assert run.data.metrics["cost/device_seconds"] == trial.result.cost.device_seconds
    assert run.data.metrics["objective"] == trial.metrics["bpb/descriptions"]


def test_a_learning_curve_has_the_tokens_as_steps(shown: Study) -> None:
    run = next(r for r in runs_of(shown, "trial") if r.data.tags["mixopt.trial"] == "0")
    history = client().get_metric_history(run.info.run_id, "curve/bpb/descriptions")
    assert [point.step for point in history] == [80_000 * i for i in range(1, 6)]
    lasted = run.info.end_time - run.info.start_time
    assert lasted == pytest.approx(15_000, abs=2)  # milliseconds, whatever its share of them cost
    assert history[-1].timestamp <= run.info.end_time + 2


def test_showing_everything_again_changes_nothing(shown: Study) -> None:
    def picture() -> list[tuple[str, int, str]]:
        return [
            (
                run.info.run_id,
                sum(len(client().get_metric_history(run.info.run_id, m)) for m in run.data.metrics),
                run.info.status,
            )
            for kind in ("study", "trial", "promotion")
            for run in runs_of(shown, kind)
        ]

    before = picture()
    tracker = tracker_of(shown)
    for trial in trials_of(shown):
        assert tracker.trial(trial)
    assert tracker.sync(trials_of(shown))
    assert picture() == before
    assert len(client().search_model_versions("name = 'shown'")) == 1


def test_the_study_run_has_the_summary_the_table_and_the_best_so_far(shown: Study) -> None:
    [parent] = runs_of(shown, "study")
    assert parent.data.tags["mlflow.note.content"].startswith("**The found mixture is")
    known = study_reliability(shown, trials_of(shown))
    assert verbatim(reliability_line(known)) in parent.data.tags["mlflow.note.content"]
    path = client().download_artifacts(parent.info.run_id, "reliability.json")
    ceiling = json.loads(Path(path).read_text())["bpb/descriptions"]["ceiling"]
    assert ceiling == pytest.approx(known["bpb/descriptions"].ceiling)
    assert parent.data.tags["mixopt.promoted"] == "found"
    files = {f.path for f in client().list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "trials.json", "mixture.json", "verdict.json", "study.yaml"} <= files
    table = client().load_table("1", "trials.json", run_ids=[parent.info.run_id])
    assert len(table) == len(trials_of(shown))
    history = client().get_metric_history(parent.info.run_id, "best/objective")
    values = [point.value for point in sorted(history, key=lambda p: p.step)]
    assert values == sorted(values, reverse=True)
    assert len(values) == sum(t.complete and not t.spec.candidate for t in trials_of(shown))


def test_the_study_file_is_uploaded_without_its_passwords(database: str, tmp_path: Path) -> None:
    study = write_study(tmp_path, "secretive")
    with study.path.open("a") as file:
        file.write("# ledger: postgresql://anna:hunter2@host/mixopt\n")
    assert tracker_of(study).sync([])
    run = runs_of(study, "study")[0].info.run_id
    uploaded = Path(client().download_artifacts(run, "study.yaml")).read_text()
    assert "hunter2" not in uploaded
    assert "postgresql://anna:***@host/mixopt" in uploaded


def test_names_that_mlflow_refuses_are_mended() -> None:
    assert metric_name("bpb/C++ (web):α") == "bpb/C__ _web___"


def test_a_trial_that_was_corrected_shows_its_last_value(database: str, tmp_path: Path) -> None:
    study = finished_study(tmp_path, "corrected")
    trials = trials_of(study)
    assert tracker_of(study).sync(trials)
    best = best_trial(trials, study.mixture_objective())
    assert best is not None
    assert best.result is not None
    better = {name: value / 2 for name, value in best.metrics.items()}
    ledger = open_ledger(study)
    ledger.replace(best.number, Outcome(dataclasses.replace(best.result, metrics=better)))
    ledger.close()
    for _ in range(2):
        assert tracker_of(study).sync(trials_of(study))
    expected = study.mixture_objective().value(better)
    (run,) = [
        run for run in runs_of(study, "trial") if run.data.tags["mixopt.trial"] == str(best.number)
    ]
    assert run.data.metrics["objective"] == pytest.approx(expected)
    shown = client().get_metric_history(run.info.run_id, "objective")
    assert len(shown) == 2  # then and now, each once
    [parent] = runs_of(study, "study")
    assert parent.data.metrics["best/objective"] == pytest.approx(expected)


def test_where_weights_of_the_objective_changed_its_values_are_shown_anew(
    database: str, tmp_path: Path
) -> None:
    study = finished_study(tmp_path, "reweighed")
    trials = trials_of(study)
    assert tracker_of(study).sync(trials)
    study.path.write_text(study.path.read_text().replace("{descriptions: 1.0}", "{web: 1.0}"))
    changed = load_study(study.path)
    for _ in range(2):
        assert tracker_of(changed).sync(trials)
    best = min(t.metrics["bpb/web"] for t in trials if t.complete and t.spec.role != Role.SELECT)
    [parent] = runs_of(changed, "study")
    assert parent.data.metrics["best/objective"] == pytest.approx(best)
    for run in runs_of(changed, "trial"):
        trial = trials[int(run.data.tags["mixopt.trial"])]
        if trial.complete:
            assert run.data.metrics["objective"] == pytest.approx(trial.metrics["bpb/web"])
            shown = client().get_metric_history(run.info.run_id, "objective")
            assert len(shown) == 2  # then and now, each once


def test_the_promoted_model_comes_back_by_its_alias(shown: Study, tmp_path: Path) -> None:
    [promotion] = runs_of(shown, "promotion")
    assert promotion.info.status == "FINISHED"
    assert promotion.data.metrics["after/bpb/descriptions"] > 0
    [version] = client().search_model_versions("name = 'shown'")
    assert version.run_id == promotion.info.run_id
    tracker, key = tracker_of(shown), version.tags[run_tags.KEY]
    assert tracker.decided(ChampionDecision(promotion=key, alias="champion", reason="the first"))
    found = tracker.registered(key)
    assert found is not None
    assert found.standing is not None
    assert (found.version, found.standing.promotion) == (str(version.version), key)
    folder = mlflow.artifacts.download_artifacts("models:/shown@champion", dst_path=str(tmp_path))
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert (Path(folder) / "MLmodel").exists()
