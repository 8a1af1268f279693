"""What mixopt shows in MLflow: one parent run per study, one child per trial, the promotion.

MLflow is a view. The ledger and the study folder hold the truth, every method here can be called
again without showing anything twice, and no failure of MLflow's reaches the study: it is reported
once, and `sync` (`mixopt sync STUDY.yaml`) shows afterwards what was missed. What trains is shown
by a thread of its own (`live`), so that an MLflow that is slow or hangs does not hold up a search.
"""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import mixopt
from mixopt.core.trials import CurvePoint, Trial
from mixopt.corpus.manifest import digest
from mixopt.pipelines.views.holdout_words import holdout_lines
from mixopt.pipelines.views.mlflow import registered_model, run_tags
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.child_runs import ChildRuns, at_rest
from mixopt.pipelines.views.mlflow.datasets import dataset_input
from mixopt.pipelines.views.mlflow.links import runs_link, version_link
from mixopt.pipelines.views.mlflow.live import LiveView
from mixopt.pipelines.views.mlflow.mlflow_store import (
    RunStore,
    quiet,
    set_moved_aside,
    tracking_uri,
)
from mixopt.pipelines.views.mlflow.problem import problem
from mixopt.pipelines.views.mlflow.promotion_run import LivePromotion, show_promotion
from mixopt.pipelines.views.mlflow.registered_model import Artifact, Registered
from mixopt.pipelines.views.mlflow.saved_views import key, study_views
from mixopt.pipelines.views.mlflow.study_page import StudyPage
from mixopt.pipelines.views.mlflow.study_run import StudyRun
from mixopt.pipelines.views.multiplier_words import multiplier_line
from mixopt.pipelines.views.reliability import reliability_line, reliability_warnings
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.selection.transfer import Transfer
from mixopt.study import records
from mixopt.study.champion import ChampionDecision
from mixopt.study.reliability import study_reliability
from mixopt.study.results import Promotion, Verdict

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

    from mixopt.study.identity import Identity
    from mixopt.study.settings import Study

__all__ = ["Tracker", "tracking_uri"]

# After a failure no trial is shown for this long, doubled at each further one: a server that hangs
# costs a minute and a half to find out. `sync` catches up.
FIRST_REST, LONGEST_REST = 60.0, 1800.0
PATIENCE_AT_THE_END = 2.0  # with a thread that waits for MLflow: somebody may have pressed Ctrl-C
LIVE = ("trial", "promotion_trains")  # methods of the thread
CHANGES_LIVE: Mapping[str, Callable[[LiveView], None]] = {  # before they show anything themselves
    "study_started": LiveView.begin,
    "sync": LiveView.clear,
    "study_ended": LiveView.end,
}
P = ParamSpec("P")


@dataclass
class _Connection:
    """The MLflow that shows a study, its run, those of its trials, and of what is promoted now."""

    store: RunStore
    study: StudyRun
    trials: ChildRuns
    live: LivePromotion | None = None


def _shown(
    method: Callable[Concatenate[Tracker, _Connection, P], None],
) -> Callable[Concatenate[Tracker, P], bool]:
    """The one place where MLflow's failures end: reported once, and False returned."""

    @functools.wraps(method)
    def guarded(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        if not self.enabled or (method.__name__ in LIVE and time.monotonic() < self._rest_until):
            return False
        patience = PATIENCE_AT_THE_END if method.__name__ == "study_ended" else -1
        if forget := CHANGES_LIVE.get(method.__name__):
            forget(self._live)
        if not self._lock.acquire(timeout=patience):  # the thread of `live` may hold it
            return False
        try:
            if self._live.outdated:  # taken before, and this thread had the lock last
                return False
            with quiet():
                method(self, self._connected(), *args, **kwargs)
        except Exception as error:  # requests', SQLAlchemy's, MLflow's, the disk's: all the same
            self._failed(error)
            return False
        finally:
            self._lock.release()
        self._rest = FIRST_REST
        return True

    return guarded


class Tracker:
    """Shows a study in MLflow while it runs. Made by `open`; used by the driver's process only.

    Every public method but `live` and `live_promotion` returns whether MLflow has it now.
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
        self._connection: _Connection | None = None
        self._lock, self._live = threading.Lock(), LiveView(self.trial, self.promotion_trains)

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
    def _prepare(self, mlflow: _Connection) -> None:
        """Connect, and no more."""

    @_shown
    def study_started(self, mlflow: _Connection) -> None:
        """Show that the study runs, with the settings it is frozen to."""
        settings = {k: values.text(v) for k, v in records.read_settings(self.study.home).items()}
        mlflow.store.log(mlflow.study.id, params=settings)
        mlflow.store.client.update_run(mlflow.study.id, status="RUNNING")

    @_shown
    def study_ended(self, mlflow: _Connection, *, failed: bool = False) -> None:
        """Show that the study has no active driver any more, and that nothing of it trains."""
        mlflow.trials.interrupt()
        if mlflow.live is not None:
            mlflow.live.stopped()
            mlflow.live = None
        mlflow.store.end(mlflow.study.id, "FAILED" if failed else "FINISHED", time.time())

    @_shown
    def predicted(self, mlflow: _Connection, digest: str) -> None:
        """Show that the held-out trials are predicted, by the SHA-256 of the predictions."""
        mlflow.study.predicted(digest)

    def live(self, trial: Trial, points: Sequence[CurvePoint] = ()) -> None:
        """Have `trial` shown as it stands, and the newest `points` of its curve; waits for nothing.

        What was not shown when the study ends is shown by `sync`.
        """
        if self.enabled:
            self._live.post(trial, points)

    @_shown
    def trial(self, mlflow: _Connection, trial: Trial, points: Sequence[CurvePoint] = ()) -> None:
        """Show `trial` as it stands now, and the newest `points` of its curve."""
        mlflow.trials.show(trial, points)

    def live_promotion(self, folder: Path) -> None:
        """Have shown what the promotion in `folder` reported so far; waits for nothing."""
        if self.enabled:
            self._live.post_promotion(folder)

    @_shown
    def promotion_trains(self, mlflow: _Connection, folder: Path) -> None:
        """Show what the trainings of the promotion in `folder` have reported so far."""
        if mlflow.live is None:
            tags = self._tags("promotion", mlflow.study.id)
            mlflow.live = LivePromotion(mlflow.store, tags, self._data, folder)
        mlflow.live.show()

    @_shown
    def verdict(self, mlflow: _Connection, verdict: Verdict) -> None:
        """Show what the selection decided."""
        mlflow.study.verdict(verdict)

    @_shown
    def transfer(self, mlflow: _Connection, found: Transfer, overruled: str | None) -> None:
        """Show the check of the mixtures' order at a larger size, and why it was overruled."""
        mlflow.study.transfer(found, overruled)

    def registered(self, promotion: str) -> Registered | None:
        """What the registry says of the promotion with that key.

        None if it has no version of it, or if MLflow cannot be used.
        """
        self._registered: Registered | None = None
        return self._registered if self._look_up(promotion) else None

    @_shown
    def _look_up(self, mlflow: _Connection, promotion: str) -> None:
        self._registered = registered_model.registered(mlflow.store, self.study, promotion)

    @_shown
    def download_champion(self, mlflow: _Connection, folder: Path) -> None:
        """Copy the artifact of the standing champion into `folder`."""
        registered_model.download_champion(mlflow.store, self.study, folder)

    @_shown
    def decided(self, mlflow: _Connection, decision: ChampionDecision) -> None:
        """Show a decision: the alias of its promotion's version."""
        registered_model.apply(mlflow.store, self.study, decision)

    @_shown
    def sync(
        self,
        mlflow: _Connection,
        trials: Sequence[Trial],
        holdout: str | None = None,
        overruled: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Show the whole study, all that was missed and nothing twice.

        Works from the ledger's `trials` and the study folder alone, so also after MLflow's
        database was deleted. Runs of trials that the ledger does not know are removed if they were
        made here. Called where nothing trains: what a driver left running waits to go on, unless
        the study is trained elsewhere.

        Args:
            mlflow: given by the guard, not by the caller.
            trials: of the ledger.
            holdout: SHA-256 of the predictions of the held-out trials, as the ledger has it.
            overruled: basis of a check at a larger size → why a person goes on in spite of it.
        """
        mlflow.trials.keep(trial.number for trial in trials)
        for trial in trials:
            mlflow.trials.show(trial if self.study.elsewhere else at_rest(trial))
        verdict = records.read_verdict(self.study.home)
        promotion = records.read_promotion(self.study.home)
        transfer = records.read_transfer(self.study)
        if verdict is not None:
            mlflow.study.verdict(verdict)
        if transfer is not None:
            mlflow.study.transfer(transfer, overruled.get(transfer.basis))
        if promotion is not None:
            self._show_promotion(mlflow, promotion)
        if holdout is not None:
            mlflow.study.predicted(holdout)
        known = study_reliability(self.study, trials)
        mlflow.study.progress(trials)
        mlflow.study.files(trials, known)
        remarks = [
            trade_line(verdict),
            multiplier_line(verdict),
            *transfer_lines(transfer, overruled, self._objective.sign),
            *holdout_lines(self.study.home, holdout, trials, self._objective),
            reliability_line(known),
            *reliability_warnings(known),
        ]
        promote = self.study.promote
        page = StudyPage(
            file=self.study.path.name,
            trials=trials,
            objective=self._objective,
            verdict=verdict,
            promotion=promotion,
            promotes="" if promote is None else "ask" if promote.elsewhere else "promote",
            repeats=self.study.search.repeats,
            elsewhere=self.study.elsewhere,
            remarks=[line for line in remarks if line],
            links=self._links(mlflow, promotion),
        )
        mlflow.store.log(mlflow.study.id, tags={run_tags.NOTE: page.markdown()})
        if all(t.ended for t in trials):
            mlflow.store.end(mlflow.study.id, "FINISHED", time.time())
        elif not self.study.elsewhere:
            mlflow.store.client.update_run(mlflow.study.id, status="SCHEDULED")

    @_shown
    def artifacts(self, mlflow: _Connection, *paths: Path) -> None:
        """Keep files, such as the report, with the study's run."""
        for path in paths:
            mlflow.store.client.log_artifact(mlflow.study.id, str(path))

    def close(self) -> None:
        """Let go of MLflow, which has a moment to take what was posted to `live`."""
        self._live.wait(PATIENCE_AT_THE_END)
        self._live.clear()
        self._connection = None

    def _own_format(self, result: Promotion, _: Path) -> Path:
        """The folder of a promoted model in our own format."""
        return self.study.home / "promotion" / result.model

    def _show_promotion(self, mlflow: _Connection, result: Promotion) -> None:
        mlflow.live = None  # it has ended
        tags = self._tags("promotion", mlflow.study.id)
        show_promotion(mlflow.store, self.study, result, tags, self._data, self._artifact)

    def _links(self, mlflow: _Connection, promotion: Promotion | None) -> dict[str, str]:
        """Pages beside the study's, relative to MLflow's own address."""
        experiment = mlflow.store.experiment
        found = {"all trials, best first": runs_link("", experiment, key(self._id))}
        if promotion is not None:
            name = registered_model.registered_name(self.study)
            model = registered_model.registered(mlflow.store, self.study, promotion.key)
            if model is not None:
                found["promoted model"] = version_link("", name, model.version)
        return {text: address.removeprefix("/") for text, address in found.items()}

    # -- the connection ------------------------------------------------------------------------

    def _connected(self) -> _Connection:
        if self._connection is not None:
            return self._connection
        aside = set_moved_aside(self.study)
        if aside is not None:
            self._on_warning(
                f"the study folder was moved or copied, and MLflow's database names files at its "
                f"former place; it is kept as {aside.name}, and a new one shows the study"
            )
        store = RunStore.open(self.study)
        identity = {run_tags.STUDY: self.study.name, run_tags.ID: self._id}
        parents = store.runs({**identity, run_tags.KIND: "study"})
        parent = parents[0] if parents else self._create_parent(store, identity)
        run, start = parent.info.run_id, parent.info.start_time
        domains = self.study.open_data().domains
        views = study_views(self.study.name, self._id, domains, self._objective.sign)
        store.describe({name: value for view in views for name, value in [view.tag(start)]})
        self._connection = _Connection(
            store,
            StudyRun(store, self.study, run, start, self._weighed),
            ChildRuns(
                store,
                self.study.home,
                self._objective,
                self._weighed,
                self._tags("trial", run),
                self._data,
            ),
        )
        return self._connection

    @cached_property
    def _data(self) -> DatasetInput:
        return dataset_input(self.study.open_data(), self.study.name)

    def _create_parent(self, store: RunStore, identity: Mapping[str, str]) -> Run:
        tags = {**identity, run_tags.KIND: "study", "mixopt.version": mixopt.__version__}
        begun = values.changed(self.study.home / "study.json") / 1000
        run = store.create(self.study.name, tags, begun or time.time())
        store.client.log_inputs(run.info.run_id, datasets=[self._data])
        return run

    def _failed(self, error: Exception) -> None:
        self._connection, self._rest_until = None, time.monotonic() + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST)
        first, self.error = self.error is None, error
        if first:
            self._on_warning(str(problem(self.study, error)))

    def _tags(self, kind: str, parent: str) -> dict[str, str]:
        return {
            run_tags.STUDY: self.study.name,
            run_tags.KIND: kind,
            run_tags.ID: self._id,
            run_tags.PLACE: self._place,
            run_tags.PARENT: parent,
        }
