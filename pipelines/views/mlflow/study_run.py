"""The run of a study in MLflow, the parent of its trials' runs: numbers, tables and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mixopt.core import urls
from mixopt.core.objective import Objective
from mixopt.core.trials import Trial
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.child_runs import restated
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.selection.transfer import Transfer
from mixopt.study.frames import trials_frame
from mixopt.study.holdout import FILE as HOLDOUT
from mixopt.study.results import Verdict

if TYPE_CHECKING:
    from mixopt.study.settings import Study
    from mixopt.surrogates.reliability import Reliability

FILES = ("mixture.json", "verdict.json", "transfer.json")  # of the study's folder


class StudyRun:
    """The study's own run.

    Args:
        store: the MLflow it is in.
        study: the study.
        run: id of the run.
        start: when it began, in milliseconds since 1970.
        weighed: digest of the objective's weights, which may change between rounds.
    """

    def __init__(self, store: RunStore, study: Study, run: str, start: int, weighed: str) -> None:
        self.id, self._store, self._study = run, store, study
        self._start, self._weighed = start, weighed
        self._objective: Objective = study.mixture_objective()

    def verdict(self, verdict: Verdict) -> None:
        """Show what the selection decided."""
        stamp = values.changed(self._study.home / "verdict.json")
        self._store.log(
            self.id,
            metrics=values.verdict_metrics(verdict.turned(self._objective.sign), stamp),
            tags={"mixopt.promoted": verdict.promoted},
        )

    def predicted(self, digest: str) -> None:
        """Show that the held-out trials are predicted, by the SHA-256 of the predictions."""
        self._store.log(self.id, tags={"mixopt.holdout": digest})
        if (file := self._study.home / HOLDOUT).exists():
            self._store.client.log_artifact(self.id, str(file))

    def transfer(self, found: Transfer, overruled: str | None) -> None:
        """Show whether the order of the mixtures holds at a larger size."""
        kept = "true" if found.kept else "false" if overruled is None else f"overruled: {overruled}"
        self._store.log(self.id, tags={"mixopt.order_kept": kept})

    def progress(self, trials: Sequence[Trial]) -> None:
        """Show the best objective and the cost after each trial, and what all have cost."""
        store, points = self._store, values.best_so_far(trials, self._objective, self._start)
        history = store.client.get_metric_history(self.id, "best/objective")
        last = max((point.step for point in history), default=0)
        tags = store.client.get_run(self.id).data.tags
        corrected = sum(len(t.replaced) for t in trials)
        weighed = f"{self._weighed}:{corrected}" if corrected else self._weighed
        if last and tags.get(run_tags.WEIGHED, self._weighed) != weighed:
            store.log(self.id, metrics=restated(points, "best/objective"))
        store.log(
            self.id,
            metrics=[point for point in points if point[2] > last],
            tags={run_tags.WEIGHED: weighed},
        )

    def files(self, trials: Sequence[Trial], known: Mapping[str, Reliability]) -> None:
        """Keep tables and records with the run."""
        client, home = self._store.client, self._study.home
        frame = trials_frame(trials, self._objective)
        client.log_text(self.id, csv_bytes(frame).decode(), "trials.csv")
        table = {"columns": frame.columns, "data": [list(row) for row in frame.iter_rows()]}
        client.log_dict(self.id, finite(table), "trials.json")
        shown = [{"path": "trials.json", "type": "table"}]
        self._store.log(self.id, tags={"mlflow.loggedArtifacts": json.dumps(shown)})
        if known:
            found = {name: it.to_json() for name, it in known.items()}
            client.log_dict(self.id, finite(found), "reliability.json")
        for path in (home / name for name in FILES):
            if path.exists():
                client.log_artifact(self.id, str(path))
        if self._study.path.exists():
            settings = urls.masked(self._study.path.read_text())
            client.log_text(self.id, settings, self._study.path.name)
