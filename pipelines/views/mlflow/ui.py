"""`mixopt ui STUDY.yaml`: MLflow's pages on a study, with links that lead to the right ones."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core import urls
from mixopt.core.errors import StudyError
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.mlflow import registered_model, run_tags
from mixopt.pipelines.views.mlflow.links import run_link, runs_link, version_link
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore, quiet, tracking_uri
from mixopt.pipelines.views.mlflow.problem import problem
from mixopt.pipelines.views.mlflow.saved_views import key
from mixopt.pipelines.views.mlflow.server import free_port, serving
from mixopt.study import identity
from mixopt.study.locked import require_begun
from mixopt.study.records import read_promotion
from mixopt.study.settings import load_study

if TYPE_CHECKING:
    from mixopt.study.settings import Study

HTTP = ("http://", "https://")


@dataclass(frozen=True)
class Pages:
    """Where a study is in MLflow.

    Attributes:
        experiment: id of its experiment.
        view: key of the view of its trials.
        run: id of its own run.
        trials: how many trials are shown.
        promotion: id of the latest promotion's run; empty without one.
        model: name and version of the promoted model; empty without one.
    """

    experiment: str
    view: str
    run: str
    trials: int
    promotion: str = ""
    model: tuple[str, str] = ("", "")

    def links(self, base: str) -> dict[str, str]:
        """What each page is → its address on the server `base`."""
        found = {
            "trials, best first": runs_link(base, self.experiment, self.view),
            "study": run_link(base, self.experiment, self.run),
        }
        if self.promotion:
            found["promotion"] = run_link(base, self.experiment, self.promotion)
        if self.model[0]:
            found["model"] = version_link(base, *self.model)
        return found


def show_ui(path: Path, port: int | None = None, *, browser: bool = False) -> None:
    """Print the links to the study's pages, and serve them until Ctrl-C where no server does.

    Args:
        path: the study file.
        port: to serve on; the first free one from 5000 on if not given.
        browser: whether the first page is opened.

    Raises:
        StudyError: the study has not begun, MLflow is off, or it does not show the study.
        MixoptError: MLflow cannot be used, or its server does not start.
    """
    study = load_study(path)
    if not study.mlflow.enabled:
        raise StudyError(
            "MLflow is switched off",
            where=f"{path}: mlflow.enabled",
            hint=f"Set it to true, then `{command('sync', path)}`; the report needs no MLflow: "
            f"`{command('report', path)}`",
        )
    require_begun(study, command("run", path))
    pages, uri = find_pages(study), tracking_uri(study)
    if uri.startswith(HTTP):
        _print(pages.links(urls.masked(uri)), browser)
        return
    try:
        with serving(uri, free_port(port)) as address:
            _print(pages.links(address), browser)
            if not pages.trials:
                print("No trial is shown yet: the table fills as they are started.")
            print("Ctrl-C ends it.", flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        print("\nMLflow's pages are closed; nothing is lost.")


def find_pages(study: Study) -> Pages:
    """Where MLflow shows `study`; nothing is written.

    Raises:
        StudyError: it does not show it.
        MixoptError: it cannot be used.
    """
    owner, own = identity.read(study.home), urls.sqlite_path(tracking_uri(study))
    found: Pages | None = None
    # opening a database that is absent or empty would make its tables: that is the driver's to do
    if owner is not None and (own is None or (own.exists() and own.stat().st_size)):
        try:
            with quiet():
                found = _find(study, owner.id)
        except Exception as error:  # requests', SQLAlchemy's, MLflow's, the disk's: all the same
            raise problem(study, error) from error
    if found is None:
        raise StudyError(
            "MLflow does not show this study yet",
            where=str(study.path),
            hint=f"`{command('sync', study.path)}` shows what there is; a run does so by itself",
        )
    return found


def _find(study: Study, owner: str) -> Pages | None:
    store = RunStore.find(study)
    if store is None:
        return None
    own = {run_tags.STUDY: study.name, run_tags.ID: owner}
    runs = store.runs({**own, run_tags.KIND: "study"})
    if not runs:
        return None
    promotion = read_promotion(study.home)
    model, promoted = ("", ""), ""
    if promotion is not None:
        version = registered_model.registered(store, study, promotion.key)
        if version is not None:
            model = registered_model.registered_name(study), version.version
        shown = store.runs({**own, run_tags.KIND: "promotion", run_tags.KEY: promotion.key})
        promoted = shown[0].info.run_id if shown else ""
    trials = len(store.runs({**own, run_tags.KIND: "trial"}))
    return Pages(store.experiment, key(owner), runs[0].info.run_id, trials, promoted, model)


def _print(links: dict[str, str], browser: bool) -> None:
    for line in _lines(links):
        print(line)
    if browser and not webbrowser.open(next(iter(links.values()))):
        print("No browser could be opened here: open the first link yourself.")


def _lines(links: dict[str, str]) -> Iterator[str]:
    width = max(map(len, links))
    for what, address in links.items():
        yield f"{what:<{width}}  {address}"
