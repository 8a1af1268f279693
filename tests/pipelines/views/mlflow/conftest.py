"""One MLflow database for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: making one takes seconds."""
    return tmp_path_factory.mktemp("mlflow") / "shared.db"


@pytest.fixture(scope="module")
def database(database_file: Path) -> Iterator[str]:
    """The database that MLflow's environment variable names in the tests of a file."""
    uri = f"sqlite:///{database_file}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield uri
