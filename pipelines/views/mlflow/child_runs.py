"""The child runs of a study in MLflow: one per trial of the ledger, found again by its tags."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, State, Trial
from mixopt.io import trial_files
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.child_page import trial_markdown
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore, curve_metrics
from mixopt.pipelines.views.mlflow.run_names import trial_name

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

STATUS = {
    State.WAITING: "SCHEDULED",
    State.RUNNING: "RUNNING",
    State.COMPLETE: "FINISHED",
    State.PRUNED: "KILLED",  # MLflow's word for what was stopped and did not fail
    State.FAILED: "FAILED",
}
ENDED = ("FINISHED", "KILLED", "FAILED")
LOG_BYTES = 1_000_000  # of the end of a trainer's output: what went wrong stands there


@dataclass(frozen=True)
class _Child:
    """A child run as MLflow has it: its id, the spec it shows, and the state logged last.

    `whole` is whether this process logged its curve: another one's may have missed points.
    """

    run: str
    spec: str
    logged: str
    started: int
    status: str
    place: str
    name: str
    whole: bool = False


class ChildRuns:
    """The runs of a study's trials.

    Args:
        store: the MLflow they are in.
        home: the study's folder.
        objective: the study's.
        weighed: digest of its weights, which may change between rounds.
        tags: that every run of a trial carries: the study, its id, the place, the parent.
        data: the corpus, as an input of every training.
    """

    def __init__(
        self,
        store: RunStore,
        home: Path,
        objective: Objective,
        weighed: str,
        tags: Mapping[str, str],
        data: DatasetInput,
    ) -> None:
        self._store, self._home, self._objective = store, home, objective
        self._weighed, self._tags, self._data = weighed, tags, data
        self._place = tags[run_tags.PLACE]
        self._children: dict[int, _Child] = {}
        self._running: dict[int, Trial] = {}  # as they were shown last
        known = {name: tags[name] for name in (run_tags.STUDY, run_tags.ID, run_tags.KIND)}
        for run in store.runs(known):
            self._adopt(int(run.data.tags[run_tags.TRIAL]), _child(run))

    def keep(self, numbers: Iterable[int]) -> None:
        """Remove the runs of other trials than `numbers`, unless another machine made them."""
        for number in self._children.keys() - set(numbers):
            self._remove(self._children.pop(number))

    def interrupt(self) -> None:
        """Show that none of the trials that were shown as running is trained any more."""
        for trial in list(self._running.values()):
            self.show(at_rest(trial))

    def show(self, trial: Trial, points: Sequence[CurvePoint] = ()) -> None:
        """Show `trial` as it stands; nothing is sent if MLflow has that already.

        `points` of the curve are the newest; all those before them were given, or are in its file.
        """
        self._running.pop(trial.number, None)
        if trial.state is State.RUNNING:
            self._running[trial.number] = trial
        logged = f"{trial.state}:{trial.attempts}:{self._weighed}"
        if trial.replaced:
            logged = f"{len(trial.replaced)}:{logged}"
        spec, status = trial.spec.training_hash("", ""), STATUS[trial.state]
        child = self._children.get(trial.number)
        if child is not None and child.spec != spec:  # left from another life of this folder
            self._remove(child)
            child = None
        whole = child is not None and (child.whole or trial.state is not State.RUNNING)
        if child is not None and whole and (child.logged, child.status) == (logged, status):
            self._store.log(child.run, metrics=curve_metrics(points, child.started))
            return
        if child is None:
            child = self._create(trial, spec)
        self._log(trial, child, logged)
        child = self._close(trial, child, status)
        self._children[trial.number] = replace(child, logged=logged, whole=True)

    def _log(self, trial: Trial, child: _Child, logged: str) -> None:
        metrics: Iterable[values.Metric]
        metrics = values.trial_metrics(trial, self._home, self._objective, child.started)
        if trial.replaced:
            metrics = restated(metrics)
        elif child.logged and not child.logged.endswith(f":{self._weighed}"):
            metrics = restated(metrics, "objective")
        self._store.log(
            child.run,
            params={} if child.logged else values.trial_params(trial),
            metrics=metrics,
            tags={
                **values.trial_tags(trial),
                run_tags.NOTE: trial_markdown(trial, self._objective),
                run_tags.LOGGED: logged,
            },
        )

    def _close(self, trial: Trial, child: _Child, status: str) -> _Child:
        """Give the run its name and status; when it ended, with the log of its last attempt."""
        name, client = trial_name(trial, self._objective), self._store.client
        if status in ENDED:  # last: only now is it all there
            for path in attempt_logs(trial_files.trial_folder(self._home, trial.number)):
                self._store.client.log_text(child.run, _end_of(path), f"log/{path.name}")
            if name != child.name:
                client.update_run(child.run, name=name)
            end = trial_files.finished_at(self._home, trial.number) or time.time()
            self._store.end(child.run, status, max(end, child.started / 1000))
        elif status != child.status or name != child.name:
            client.update_run(child.run, status=status, name=name)
        return replace(child, status=status, name=name)

    def _create(self, trial: Trial, spec: str) -> _Child:
        end = trial_files.finished_at(self._home, trial.number) or time.time()
        # of a cohort longer than its own cost
        curve = trial_files.read_curve(self._home, trial)
        spent = curve[-1].seconds if curve else 0.0
        tags = {**self._tags, run_tags.TRIAL: str(trial.number), run_tags.SPEC: spec}
        run = self._store.create(trial_name(trial, self._objective), tags, end - spent)
        self._store.client.log_inputs(run.info.run_id, datasets=[self._data])
        return _child(run)

    def _adopt(self, number: int, child: _Child) -> None:
        """One trial, one run: of two, the one with more logged stays."""
        other = self._children.get(number)
        if other is not None:
            less, child = sorted((child, other), key=lambda c: (c.status == "FINISHED", c.logged))
            self._remove(less)
        self._children[number] = child

    def _remove(self, child: _Child) -> None:
        """Delete a run, unless another folder or machine made it."""
        if child.place == self._place:
            self._store.client.delete_run(child.run)


def at_rest(trial: Trial) -> Trial:
    """`trial` where nothing trains: one that was running waits to go on."""
    return replace(trial, state=State.WAITING) if trial.state is State.RUNNING else trial


def restated(metrics: Iterable[values.Metric], name: str = "") -> Iterator[values.Metric]:
    """`metrics`, those called `name` at the time of now: of one step MLflow shows the latest.

    The objective's weights may change while a study goes on, and its values with them. All of them
    without a name: of a trial that was corrected.
    """
    now = round(time.time() * 1000)
    for metric, value, step, stamp in metrics:
        yield metric, value, step, now if name in ("", metric) else stamp


def attempt_logs(folder: Path) -> Sequence[Path]:
    """What a trial's folder keeps of its attempts: when each was, and the last one's output."""
    output = sorted(folder.glob("output-*.log"), key=lambda path: path.stat().st_mtime)
    found = [folder / "attempts.jsonl", folder / "attempts.json", *output[-1:]]
    return [path for path in found if path.is_file()]


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    cut = size - LOG_BYTES
    return f"[the first {cut:,} bytes are left out]\n{text}" if cut > 0 else text


def _child(run: Run) -> _Child:
    tags = run.data.tags
    return _Child(
        run.info.run_id,
        tags.get(run_tags.SPEC, ""),
        tags.get(run_tags.LOGGED, ""),
        run.info.start_time,
        run.info.status,
        tags.get(run_tags.PLACE, ""),
        run.info.run_name or "",
    )
