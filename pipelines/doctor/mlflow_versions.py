"""MLflow: the client beside its server, or beside the schema of its database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mixopt.core import urls
from mixopt.pipelines.doctor.finding import Finding, Level, Place
from mixopt.pipelines.views.mlflow.mlflow_store import quiet, tracking_uri

CHECK = "mlflow"
SECONDS = 5.0


def check_mlflow(place: Place) -> Iterator[Finding]:
    """Compare the installed MLflow with what the study's runs are shown in."""
    if place.study is None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            yield Finding(CHECK, Level.FINE, "each study has a database of its own in its folder")
            return
    else:
        if not place.study.mlflow.enabled:
            yield Finding(CHECK, Level.FINE, "switched off (mlflow.enabled)")
            return
        uri = tracking_uri(place.study)
    if uri.startswith(("http://", "https://")):
        yield server(uri)
    elif path := urls.sqlite_path(uri):
        yield schema(path)


def server(uri: str) -> Finding:
    """Whether the server at `uri` answers, with the client's version."""
    from mlflow.version import VERSION

    shown = urls.masked(uri)
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=SECONDS) as answer:
            version = answer.read(64).decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        fix = "Start it, or correct mlflow.uri or MLFLOW_TRACKING_URI; the study runs without it"
        return Finding(CHECK, Level.BROKEN, f"no MLflow answers at {shown}: {error}", fix)
    mine, theirs = VERSION.split(".")[:2], version.split(".")[:2]
    if mine[:1] != theirs[:1]:
        fix = f"Install one major version on both sides: pip install mlflow=={version}"
        text = f"the server at {shown} is MLflow {version}, the client here {VERSION}"
        return Finding(CHECK, Level.BROKEN, text, fix)
    if mine != theirs:
        text = f"the server at {shown} is MLflow {version}, the client here {VERSION}"
        return Finding(CHECK, Level.NOTE, text, "Install one version on both sides")
    return Finding(CHECK, Level.FINE, f"the server at {shown} is MLflow {version} as the client")


def schema(path: Path) -> Finding:
    """Whether the database at `path` has the schema of the installed MLflow."""
    from mlflow.version import VERSION

    if not path.exists():
        return Finding(CHECK, Level.FINE, f"{path} will be made by MLflow {VERSION}")
    found = None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        found = db.execute("select version_num from alembic_version").fetchone()
    if found is None:
        fix = "Move it away: `mixopt sync` makes it again from the ledger"
        return Finding(CHECK, Level.BROKEN, f"{path} is no database of MLflow's", fix)
    with quiet():
        from mlflow.store.db.utils import _get_latest_schema_revision

        latest = _get_latest_schema_revision()
    if found[0] != latest:
        text = f"{path} has the schema {found[0]}, MLflow {VERSION} wants {latest}"
        return Finding(CHECK, Level.BROKEN, text, f"Run `mlflow db upgrade sqlite:///{path}`")
    return Finding(CHECK, Level.FINE, f"{path} has the schema of MLflow {VERSION}")
