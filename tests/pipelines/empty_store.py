"""MLflow's empty database, made once a process: its migrations take longer than most tests."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from mixopt.core import urls
from mixopt.pipelines.views.mlflow.mlflow_store import quiet


def put_empty_store(home: Path) -> None:
    """Give the study folder `home` a database with MLflow's tables and nothing in them."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_store(), home / "mlflow.db")


@functools.cache
def _empty_store() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mixopt-empty-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = folder / "mlflow.db"
    with quiet():
        from mlflow import MlflowClient

        uri = urls.sqlite(database)
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()
    return database
