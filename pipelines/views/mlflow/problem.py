"""What is wrong with the MLflow of a study, in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mixopt.core import urls
from mixopt.core.errors import MixoptError
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.mlflow.mlflow_store import tracking_uri
from mixopt.study.storage import damaged, reason

if TYPE_CHECKING:
    from mixopt.study.settings import Study


def problem(study: Study, error: Exception) -> MixoptError:
    """What is wrong with the MLflow of `study`, in a sentence, and what helps."""
    again = command("sync", study.path.name)
    what = f"MLflow cannot be used: {urls.masked(_cause(error))[:300].rstrip('.')}"
    own = urls.sqlite_path(tracking_uri(study))
    if own is None or not any(map(damaged, _chain(error))):
        fix = f"No trial is lost; `{again}` shows them once MLflow is back"
        return MixoptError(what, where=tracking_uri(study), hint=fix)
    fix = f"No trial is lost. Move that file away; `{again}` then rebuilds it from the ledger"
    return MixoptError(what, where=str(own), hint=fix)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised on top of, innermost last."""
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or below.__context__


def _cause(error: Exception) -> str:
    """One line of what the database, the network or the disk said; else of `error` itself."""
    *_, root = _chain(error)
    outside = isinstance(root, OSError | sqlite3.Error)
    return reason(root if outside else error)
