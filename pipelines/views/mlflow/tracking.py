"""What mixopt shows in MLflow: one parent run per study, one child per trial, the promotion.

MLflow is a view. The ledger and the study folder hold the truth, every method here can be called
again without showing anything twice, and no failure of MLflow's reaches the study: it is reported
once, and `sync` (`mixopt sync STUDY.yaml`) shows afterwards what was missed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import mixopt
from mixopt.core import urls
from mixopt.core.errors import MixoptError, StudyError
from mixopt.core.trials import State, Trial
from mixopt.corpus.manifest import digest
from mixopt.io import trial_files
from mixopt.io.csv_files import csv_bytes
from mixopt.io.json_values import finite
from mixopt.pipelines.views import wording
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.mlflow import registered_model
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.mlflow_store import (
    RunStore,
    curve_metrics,
    quiet,
    set_moved_aside,
    tracking_uri,
    ui_command,
)
from mixopt.pipelines.views.mlflow.registered_model import Artifact, Registered
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.reliability import reliability_line, reliability_warnings
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.selection.transfer import Transfer
from mixopt.study import records
from mixopt.study.champion import ChampionDecision
from mixopt.study.frames import trials_frame
from mixopt.study.holdout import FILE as HOLDOUT
from mixopt.study.holdout import read_holdout, score_holdout
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion, Verdict
from mixopt.study.storage import damaged, reason

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mixopt.study.identity import Identity
    from mixopt.study.settings import Study

__all__ = ["Tracker", "tracking_uri", "ui_command"]

STATUS = {
    State.WAITING: "SCHEDULED",
    State.RUNNING: "RUNNING",
    State.COMPLETE: "FINISHED",
    State.PRUNED: "KILLED",  # MLflow's word for what was stopped and did not fail
    State.FAILED: "FAILED",
}
ENDED = ("FINISHED", "KILLED", "FAILED")
# After a failure no trial is shown for this long, doubled at each further one: a server that hangs
# costs a minute and a half to find out, in which no proxy is started. `sync` catches up.
FIRST_REST, LONGEST_REST = 60.0, 1800.0
P = ParamSpec("P")


@dataclass(frozen=True)
class _Child:
    """A child run as MLflow has it: its id, the spec it shows, and the state logged last."""

    run: str
    spec: str
    logged: str
    started: int
    status: str
    place: str


def _shown(
    method: Callable[Concatenate[Tracker, RunStore, P], None],
) -> Callable[Concatenate[Tracker, P], bool]:
    """The one place where MLflow's failures end: reported once, and False returned."""

    @functools.wraps(method)
    def guarded(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        if not self.enabled or (method.__name__ == "trial" and time.monotonic() < self._rest_until):
            return False
        try:
            with quiet():
                method(self, self._connected(), *args, **kwargs)
        except Exception as error:  # requests', SQLAlchemy's, MLflow's, the disk's: all the same
            self._failed(error)
            return False
        self._rest = FIRST_REST
        return True

    return guarded


class Tracker:
    """Shows a study in MLflow while it runs. Made by `open`; used by the driver's process only.

    Every public method returns whether MLflow has it now.
    """

    def __init__(
        self,
        study: Study,
        owner: Identity,
        on_warning: Callable[[str], None],
        artifact: Artifact | None = None,
    ) -> None:
        self._artifact = artifact or self._own_format
        self.study, self.enabled = study, study.mlflow.enabled
        self._id = owner.id  # two folders of one name may share a server
        # A copy on another machine keeps the id if it cannot see the original there. So what is
        # removed must have been made at this very place.
        self._place = f"{socket.gethostname()}:{study.home.resolve()}"
        self.error: Exception | None = None
        self._on_warning, self._rest_until, self._rest = on_warning, 0.0, FIRST_REST
        self._objective = study.mixture_objective()
        self._weighed = digest(dict(self._objective.weights))[:8]
        self._store: RunStore | None = None
        self._parent = ""
        self._parent_start = 0
        self._children: dict[int, _Child] = {}

    @classmethod
    def open(
        cls,
        study: Study,
        owner: Identity,
        *,
        on_warning: Callable[[str], None],
        artifact: Artifact | None = None,
    ) -> Tracker:
        """Connect to the MLflow of `study`, create and migrate its database, find what it shows.

        Never raises: what is wrong with MLflow goes to `on_warning`, once. With
        `mlflow: {enabled: false}` nothing is done, now or later. Only runs that carry the id of
        `owner` are changed or removed.

        `artifact` writes a promoted model for the registry; by default that gets our own format.
        """
        tracker = cls(study, owner, on_warning, artifact)
        tracker._prepare()
        return tracker

    @_shown
    def _prepare(self, store: RunStore) -> None:
        """Connect, and no more."""

    @_shown
    def study_started(self, store: RunStore) -> None:
        """Show that the study runs, with the settings it is frozen to."""
        settings = {k: values.text(v) for k, v in records.read_settings(self.study.home).items()}
        store.log(self._parent, params=settings)
        store.client.update_run(self._parent, status="RUNNING")

    @_shown
    def study_ended(self, store: RunStore, *, failed: bool = False) -> None:
        """Show that the study has no active driver any more."""
        store.end(self._parent, "FAILED" if failed else "FINISHED", time.time())

    @_shown
    def predicted(self, store: RunStore, digest: str) -> None:
        """Show that the held-out trials are predicted, by the SHA-256 of the predictions."""
        self._show_predicted(store, digest)

    @_shown
    def trial(self, store: RunStore, trial: Trial) -> None:
        """Show `trial` as it stands now."""
        self._show(store, trial)

    @_shown
    def verdict(self, store: RunStore, verdict: Verdict) -> None:
        """Show what the selection decided."""
        self._show_verdict(store, verdict)

    @_shown
    def transfer(self, store: RunStore, found: Transfer, overruled: str | None) -> None:
        """Show the check of the mixtures' order at a larger size, and why it was overruled."""
        self._show_transfer(store, found, overruled)

    @_shown
    def promotion(self, store: RunStore, result: Promotion, folder: Path) -> None:
        """Show the promotion in its own child run and register its model.

        Args:
            store: given by the guard, not by the caller.
            result: what the promotion measured.
            folder: the promotion's folder.
        """
        self._show_promotion(store, result, folder)

    def registered(self, promotion: str) -> Registered | None:
        """What the registry says of the promotion with that key.

        None if it has no version of it, or if MLflow cannot be used.
        """
        self._registered: Registered | None = None
        return self._registered if self._look_up(promotion) else None

    @_shown
    def _look_up(self, store: RunStore, promotion: str) -> None:
        self._registered = registered_model.registered(store, self.study, promotion)

    @_shown
    def download_champion(self, store: RunStore, folder: Path) -> None:
        """Copy the artifact of the standing champion into `folder`."""
        registered_model.download_champion(store, self.study, folder)

    @_shown
    def decided(self, store: RunStore, decision: ChampionDecision) -> None:
        """Show a decision: the alias of its promotion's version."""
        registered_model.apply(store, self.study, decision)

    @_shown
    def sync(
        self,
        store: RunStore,
        trials: Sequence[Trial],
        holdout: str | None = None,
        overruled: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Show the whole study, all that was missed and nothing twice.

        Works from the ledger's `trials` and the study folder alone, so also after MLflow's
        database was deleted. Runs of trials that the ledger does not know are removed if they were
        made here.

        Args:
            store: given by the guard, not by the caller.
            trials: of the ledger.
            holdout: SHA-256 of the predictions of the held-out trials, as the ledger has it.
            overruled: basis of a check at a larger size → why a person goes on in spite of it.
        """
        for number in self._children.keys() - {t.number for t in trials}:
            self._remove(store, self._children.pop(number))
        for trial in trials:
            self._show(store, trial)
        verdict = records.read_verdict(self.study.home)
        promotion = records.read_promotion(self.study.home)
        if verdict is not None:
            self._show_verdict(store, verdict)
        transfer = records.read_transfer(self.study)
        if transfer is not None:
            self._show_transfer(store, transfer, overruled.get(transfer.basis))
        if promotion is not None:
            self._show_promotion(store, promotion, self.study.home / "promotion")
        if holdout is not None:
            self._show_predicted(store, holdout)
            self._show_holdout(store, trials, holdout)
        self._show_progress(store, trials)
        self._upload_tables(store, trials)
        known = study_reliability(self.study, trials)
        remarks = [
            trade_line(verdict),
            multiplier_line(verdict),
            *transfer_lines(transfer, overruled, self._objective.sign),
            *holdout_lines(self.study.home, holdout, trials),
            reliability_line(known),
            *reliability_warnings(known),
        ]
        page = wording.markdown(
            self.study.name,
            trials,
            self._objective,
            verdict,
            promotion,
            [line for line in remarks if line],
        )
        done = sum(trial.complete for trial in trials)
        store.log(
            self._parent,
            metrics=values.reliability_metrics(known, done, self._parent_start + done),
            tags={"mlflow.note.content": page},
        )
        if all(t.ended for t in trials):
            store.end(self._parent, "FINISHED", time.time())

    @_shown
    def artifacts(self, store: RunStore, *paths: Path) -> None:
        """Keep files, such as the report, with the study's run."""
        for path in paths:
            store.client.log_artifact(self._parent, str(path))

    def close(self) -> None:
        """Let go of MLflow."""
        self._store = None

    def _own_format(self, result: Promotion, _: Path) -> Path:
        """The folder of a promoted model in our own format."""
        return self.study.home / "promotion" / result.model

    # -- the connection ------------------------------------------------------------------------

    def _connected(self) -> RunStore:
        if self._store is not None:
            return self._store
        aside = set_moved_aside(self.study)
        if aside is not None:
            self._on_warning(
                f"the study folder was moved or copied, and MLflow's database names files at its "
                f"former place; it is kept as {aside.name}, and a new one shows the study"
            )
        store = RunStore.open(self.study)
        identity = {"mixopt.study": self.study.name, "mixopt.id": self._id}
        parents = store.runs({**identity, "mixopt.kind": "study"})
        parent = parents[0] if parents else self._create_parent(store, identity)
        self._parent, self._parent_start = parent.info.run_id, parent.info.start_time
        self._children = {}
        for run in store.runs({**identity, "mixopt.kind": "trial"}):
            self._adopt(store, int(run.data.tags["mixopt.trial"]), _child(run))
        self._store = store
        return store

    def _adopt(self, store: RunStore, number: int, child: _Child) -> None:
        """One trial, one run: of two, the one with more logged stays."""
        other = self._children.get(number)
        if other is not None:
            less, child = sorted((child, other), key=lambda c: (c.status == "FINISHED", c.logged))
            self._remove(store, less)
        self._children[number] = child

    def _remove(self, store: RunStore, child: _Child) -> None:
        """Delete a run, unless another folder or machine made it."""
        if child.place == self._place:
            store.client.delete_run(child.run)

    def _create_parent(self, store: RunStore, identity: Mapping[str, str]) -> Run:
        tags = {**identity, "mixopt.kind": "study", "mixopt.version": mixopt.__version__}
        begun = values.changed(self.study.home / "study.json") / 1000
        return store.create(self.study.name, tags, begun or time.time())

    def _failed(self, error: Exception) -> None:
        self._store, self._rest_until = None, time.monotonic() + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST)
        first, self.error = self.error is None, error
        if first:
            self._on_warning(str(problem(self.study, error)))

    # -- what is shown -------------------------------------------------------------------------

    def _show(self, store: RunStore, trial: Trial) -> None:
        logged = f"{trial.state}:{trial.attempts}:{self._weighed}"
        if trial.replaced:
            logged = f"{len(trial.replaced)}:{logged}"
        spec = trial.spec.training_hash("", "")
        status = STATUS[trial.state]
        child = self._children.get(trial.number)
        if child is not None and child.spec != spec:  # left from another life of this folder
            self._remove(store, child)
            child = None
        if child is not None and (child.logged, child.status) == (logged, status):
            return
        if child is None:
            child = self._create_child(store, trial, spec)
        metrics = values.trial_metrics(trial, self.study.home, self._objective, child.started)
        if trial.replaced:
            metrics = restated(metrics)
        elif child.logged and not child.logged.endswith(f":{self._weighed}"):
            metrics = restated(metrics, "objective")
        store.log(
            child.run,
            params=values.trial_params(trial),
            metrics=metrics,
            tags={**values.trial_tags(trial), "mixopt.logged": logged},
        )
        if status in ENDED:  # last: only now is it all there
            end = trial_files.finished_at(self.study.home, trial.number) or time.time()
            store.end(child.run, status, max(end, child.started / 1000))
        elif child.status != status:
            store.client.update_run(child.run, status=status)
        self._children[trial.number] = replace(child, logged=logged, status=status)

    def _create_child(self, store: RunStore, trial: Trial, spec: str) -> _Child:
        end = trial_files.finished_at(self.study.home, trial.number) or time.time()
        # of a cohort longer than its own cost
        curve = trial_files.read_curve(self.study.home, trial)
        spent = curve[-1].seconds if curve else 0.0
        tags = {**self._tags("trial"), "mixopt.trial": str(trial.number), "mixopt.spec": spec}
        return _child(store.create(f"trial {trial.number:04d}", tags, end - spent))

    def _show_verdict(self, store: RunStore, verdict: Verdict) -> None:
        stamp = values.changed(self.study.home / "verdict.json")
        store.log(
            self._parent,
            metrics=values.verdict_metrics(verdict.turned(self._objective.sign), stamp),
            tags={"mixopt.promoted": verdict.promoted},
        )

    def _show_predicted(self, store: RunStore, digest: str) -> None:
        store.log(self._parent, tags={"mixopt.holdout": digest})
        if (file := self.study.home / HOLDOUT).exists():
            store.client.log_artifact(self._parent, str(file))

    def _show_holdout(self, store: RunStore, trials: Sequence[Trial], digest: str) -> None:
        """The score of the held-out trials; none where their predictions were changed."""
        with contextlib.suppress(StudyError):
            score = score_holdout(read_holdout(self.study.home, digest), trials)
            stamp = values.changed(self.study.home / HOLDOUT)
            store.log(self._parent, metrics=values.holdout_metrics(score, stamp))

    def _show_transfer(self, store: RunStore, found: Transfer, overruled: str | None) -> None:
        stamp = values.changed(self.study.home / "transfer.json")
        kept = "true" if found.kept else "false" if overruled is None else f"overruled: {overruled}"
        store.log(
            self._parent,
            metrics=values.transfer_metrics(found.turned(self._objective.sign), stamp),
            tags={"mixopt.order_kept": kept},
        )

    def _show_promotion(self, store: RunStore, result: Promotion, folder: Path) -> None:
        known = result.key
        tags = {**self._tags("promotion"), "mixopt.promotion": known}
        runs = store.runs(tags)
        if runs and runs[0].info.status == "FINISHED":
            return
        spent = sum(stage.device_seconds for stage in result.stages)
        end = values.changed(folder / "result.json") / 1000
        run = runs[0] if runs else store.create("promotion", tags, end - spent)
        name, start = run.info.run_id, run.info.start_time
        store.log(
            name,
            params=values.promotion_params(result),
            metrics=[
                *curve_metrics(list(result.curve), start),
                *values.promotion_finals(result, round(end * 1000)),
            ],
            tags={"mlflow.note.content": wording.promotion_markdown(result)},
        )
        for path in sorted(folder.glob("*.json")):
            store.client.log_artifact(name, str(path))
        registered_model.register(store, self.study, result, folder, name, known, self._artifact)
        store.end(name, "FINISHED", end)

    def _show_progress(self, store: RunStore, trials: Sequence[Trial]) -> None:
        history = store.client.get_metric_history(self._parent, "best/objective")
        last = max((point.step for point in history), default=0)
        points = values.best_so_far(trials, self._objective, self._parent_start)
        tags = store.client.get_run(self._parent).data.tags
        corrected = sum(len(t.replaced) for t in trials)
        weighed = f"{self._weighed}:{corrected}" if corrected else self._weighed
        if last and tags.get("mixopt.weighed", self._weighed) != weighed:
            store.log(self._parent, metrics=restated(points, "best/objective"))
        store.log(
            self._parent,
            metrics=[point for point in points if point[2] > last],
            tags={"mixopt.weighed": weighed},
        )

    def _upload_tables(self, store: RunStore, trials: Sequence[Trial]) -> None:
        frame = trials_frame(trials, self._objective)
        store.client.log_text(self._parent, csv_bytes(frame).decode(), "trials.csv")
        table = {"columns": frame.columns, "data": [list(row) for row in frame.iter_rows()]}
        store.client.log_dict(self._parent, finite(table), "trials.json")
        shown = [{"path": "trials.json", "type": "table"}]
        store.log(self._parent, tags={"mlflow.loggedArtifacts": json.dumps(shown)})
        home = self.study.home
        for path in (home / "mixture.json", home / "verdict.json"):
            if path.exists():
                store.client.log_artifact(self._parent, str(path))
        if self.study.path.exists():
            settings = urls.masked(self.study.path.read_text())
            store.client.log_text(self._parent, settings, self.study.path.name)

    def _tags(self, kind: str) -> dict[str, str]:
        return {
            "mixopt.study": self.study.name,
            "mixopt.id": self._id,
            "mixopt.kind": kind,
            "mixopt.place": self._place,
            "mlflow.parentRunId": self._parent,
        }


def problem(study: Study, error: Exception) -> MixoptError:
    """What is wrong with the MLflow of `study`, in a sentence, and what helps."""
    again = wording.command("sync", study.path.name)
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


def restated(metrics: Iterable[values.Metric], name: str = "") -> Iterator[values.Metric]:
    """`metrics`, those called `name` at the time of now: of one step MLflow shows the latest.

    The objective's weights may change while a study goes on, and its values with them. All of them
    without a name: of a trial that was corrected.
    """
    now = round(time.time() * 1000)
    for metric, value, step, stamp in metrics:
        yield metric, value, step, now if name in ("", metric) else stamp


def _child(run: Run) -> _Child:
    tags = run.data.tags
    return _Child(
        run.info.run_id,
        tags.get("mixopt.spec", ""),
        tags.get("mixopt.logged", ""),
        run.info.start_time,
        run.info.status,
        tags.get("mixopt.place", ""),
    )
