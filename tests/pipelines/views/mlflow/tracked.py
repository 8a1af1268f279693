"""Studies that MLflow shows: their tracker, their trials, and the runs that it made."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Run

from mixopt.core.mixture import Mixture
from mixopt.core.trials import CurvePoint, Trial, TrialSpec
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.study.ledger import Ledger
from mixopt.study.settings import Study
from mixopt.study.trainings import proxy_fidelity
from tests.pipelines.finished_study import open_ledger, owner_of


def trials_of(study: Study) -> list[Trial]:
    ledger: Ledger = open_ledger(study)
    try:
        return ledger.trials()
    finally:
        ledger.close()


def tracker_of(study: Study) -> Tracker:
    def fail(message: str) -> None:
        raise AssertionError(message)

    return Tracker.open(study, owner_of(study), on_warning=fail)


def runs_of(study: Study, kind: str) -> list[Run]:
    store = RunStore.open(study)
    return store.runs({run_tags.STUDY: study.name, run_tags.KIND: kind})


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


def begun_trial(study: Study, ledger: Ledger, seed: int = 0) -> int:
    mixture = Mixture.uniform(["arithmetic", "docstrings", "headers", "licences", "python", "web"])
    return ledger.add(TrialSpec(mixture, proxy_fidelity(study, study.open_data()), seed)).number


def write_curve(study: Study, number: int, points: Sequence[CurvePoint]) -> None:
    path = trial_folder(study.home, number) / "curve.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in points))
