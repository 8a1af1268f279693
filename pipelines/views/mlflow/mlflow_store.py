"""MLflow as mixopt uses it: explicit run ids, runs found again by tag, nothing on the console.

MLflow takes seconds to import, so it is imported inside functions. No fluent API and no global
state of MLflow's is touched, so that a user's own MLflow calls in the same process stay theirs.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mixopt.core import urls
from mixopt.core.trials import CurvePoint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mixopt.study.settings import Study

NOISY = ("mlflow", "alembic", "sqlalchemy")
PATIENCE = {
    # MLflow's own defaults wait minutes for a server that is down; a driver has proxies to feed
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
ARTIFACTS = "mlartifacts"  # beside a database of our own
EXPERIMENT = {
    # without the kind, MLflow's pages guess, and may open on traces of language models
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "objective",  # its chart comes first
    "mlflow.note.content": (
        "Studies of mixopt: a run per study, and below it a run per trial. The views of a study, "
        "under *Views*, list its trials from the best one on."
    ),
}
BATCH = 1000  # metrics that MLflow takes at once
PARAMS = 100  # parameters, and tags, that it takes at once


def tracking_uri(study: Study) -> str:
    """Where the runs of `study` are shown: its own setting, MLFLOW_TRACKING_URI, or its folder."""
    chosen = study.mlflow.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return chosen or urls.sqlite(study.home / "mlflow.db")


def set_moved_aside(study: Study) -> Path | None:
    """Set the study folder's own database aside if the folder was moved or copied since.

    MLflow's database holds absolute paths: artifacts would be written to the folder's former place,
    which may be another study's now. MLflow is a view, so a new database shows the same.

    Returns:
        What it is called now; None where it stays.
    """
    path, name = study.home / "mlflow.db", study.mlflow.experiment
    if urls.sqlite_path(tracking_uri(study)) != path or not path.exists():
        return None
    asked = "select artifact_location from experiments where name = ?"
    # what cannot be read is left to MLflow, which says so
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        found = database.execute(asked, (name,)).fetchone()
        if found is not None and not _leads_to(str(found[0]), path.parent / ARTIFACTS):
            aside = path.with_name(f"mlflow-{round(time.time())}.db")
            path.rename(aside)
            return aside
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's and its migrations' chatter off the console; what fails still raises."""
    with contextlib.suppress(ImportError):
        import mlflow  # noqa: F401  its import sets the levels that are changed here
    loggers = [logging.getLogger(name) for name in NOISY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class RunStore:
    """One experiment in one MLflow, and the runs in it.

    Opening it creates and migrates a fresh SQLite database, so only the driver may do it, before
    any worker starts: eight processes that migrate at once break it.
    """

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.client, self.experiment = client, experiment

    @classmethod
    def open(cls, study: Study) -> RunStore:
        """The experiment of `study`, made if it is not there. Raises what MLflow raises."""
        from mlflow.exceptions import MlflowException

        uri = tracking_uri(study)
        _make_folder(uri)
        client = _client(uri)
        found = client.get_experiment_by_name(study.mlflow.experiment)
        if found is not None:
            return cls(client, found.experiment_id)
        try:
            made = client.create_experiment(
                study.mlflow.experiment,
                artifact_location=_artifact_location(uri, study.home),
                tags=EXPERIMENT,
            )
        except MlflowException:  # another driver was first
            found = client.get_experiment_by_name(study.mlflow.experiment)
            if found is None:
                raise
            made = found.experiment_id
        return cls(client, made)

    @classmethod
    def find(cls, study: Study) -> RunStore | None:
        """The experiment of `study` if it is there. Raises what MLflow raises."""
        client = _client(tracking_uri(study))
        found = client.get_experiment_by_name(study.mlflow.experiment)
        return None if found is None else cls(client, found.experiment_id)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Give the experiment `tags`, those that it lacks or has otherwise."""
        known = self.client.get_experiment(self.experiment).tags
        for name, value in tags.items():
            if known.get(name) != value:
                self.client.set_experiment_tag(self.experiment, name, value)

    def runs(self, tags: Mapping[str, str]) -> list[Run]:
        """All runs that carry every one of `tags`, oldest first."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], wanted, max_results=1000, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def create(self, name: str, tags: Mapping[str, str], start: float) -> Run:
        """A new run that began at `start`, seconds since 1970."""
        common = {"mlflow.source.name": "mixopt", "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(Exception):  # a container's user id may have no name
            common["mlflow.user"] = getpass.getuser()
        return self.client.create_run(
            self.experiment, start_time=round(start * 1000), tags={**common, **tags}, run_name=name
        )

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        metrics: Iterable[tuple[str, float, int, int]] = (),
    ) -> None:
        """Write to run `run`; writing the same again changes nothing.

        Args:
            run: its id.
            params: name → value, which must never change.
            tags: name → value.
            metrics: (name, value, step, milliseconds since 1970).
        """
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(metric_name(name), float(v), t, s) for name, v, s, t in metrics]
        settings = [Param(metric_name(k), str(v)[:6000]) for k, v in (params or {}).items()]
        labels = [RunTag(k, str(v)[:8000]) for k, v in (tags or {}).items()]
        # what is over one call's limits goes ahead in calls of its own; tags are written last
        while len(points) > BATCH - 2 * PARAMS:
            self.client.log_batch(run, metrics=points[:BATCH])
            points = points[BATCH:]
        while len(settings) > PARAMS:
            self.client.log_batch(run, params=settings[:PARAMS])
            settings = settings[PARAMS:]
        while len(labels) > PARAMS:
            self.client.log_batch(run, tags=labels[:PARAMS])
            labels = labels[PARAMS:]
        if points or settings or labels:
            self.client.log_batch(run, metrics=points, params=settings, tags=labels)

    def last_steps(self, run: str, names: Iterable[str]) -> dict[str, int]:
        """The last step that run `run` has of each of these metrics; without those it has not."""
        known = self.client.get_run(run).data.metrics
        return {
            name: max(point.step for point in self.client.get_metric_history(run, logged))
            for name in dict.fromkeys(names)
            if (logged := metric_name(name)) in known
        }

    def end(self, run: str, status: str, end: float) -> None:
        """Close run `run` with MLflow's `status` at `end`, seconds since 1970."""
        self.client.set_terminated(run, status, end_time=round(end * 1000))


def curve_metrics(curve: Sequence[CurvePoint], start: int) -> list[tuple[str, float, int, int]]:
    """The points of a curve as metrics: steps are tokens, `start` in milliseconds.

    `curve/…` are evaluations, all on the same text, also the last one (`CurvePoint.comparable`);
    `train/…` numbers of the training.
    """
    return [
        (name, value, point.tokens, start + round(point.seconds * 1000))
        for point in curve
        for name, value in {
            **{f"curve/{name}": value for name, value in point.comparable.items()},
            **{f"train/{name}": value for name, value in point.training.items()},
        }.items()
    ]


def metric_name(name: str) -> str:
    """`name` with what MLflow refuses in names replaced by `_`."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _client(uri: str) -> MlflowClient:
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_folder(uri: str) -> None:
    path = urls.sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def _artifact_location(uri: str, home: Path) -> str | None:
    """Where artifacts of a new experiment go; a server knows best, a database knows nothing."""
    path = urls.sqlite_path(uri)
    if path is not None:
        # MLflow's default is ./mlruns below wherever the command was started
        return (path.absolute().parent / ARTIFACTS).as_uri()
    if "://" in uri and not uri.startswith(("http://", "https://", "file:", "databricks")):
        return (home / ARTIFACTS).as_uri()
    return None


def _leads_to(location: str, folder: Path) -> bool:
    """Whether `location` is `folder`, by whichever path, or no folder of this machine."""
    parts = urlsplit(location)
    return parts.scheme != "file" or Path(unquote(parts.path)).resolve() == folder.resolve()
