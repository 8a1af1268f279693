"""The run of a promotion in MLflow, beside the trials' runs; its model goes to the registry."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.pipelines.views.mlflow import registered_model, run_tags
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.mlflow.page import RUN, page
from mixopt.pipelines.views.mlflow.registered_model import Artifact
from mixopt.pipelines.views.mlflow.run_names import SEPARATOR, promotion_name
from mixopt.pipelines.views.mlflow.tracked_values import Metric
from mixopt.pipelines.views.mlflow.training_series import evaluations, training_series
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import made_by, promotion_markdown
from mixopt.study.watched import Watched, read_watched

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

    from mixopt.study.results import Promotion
    from mixopt.study.settings import Study


def show_promotion(
    store: RunStore,
    study: Study,
    result: Promotion,
    tags: Mapping[str, str],
    data: DatasetInput,
    artifact: Artifact,
) -> None:
    """Show a promotion in a run of its own and register its model; once.

    Args:
        store: the MLflow to show it in.
        study: whose promotion it is.
        result: what it measured.
        tags: that every promotion's run of the study carries.
        data: the corpus, as an input.
        artifact: writes the model as others load it.
    """
    folder, objective = study.home / "promotion", study.mixture_objective()
    own = {run_tags.PROMOTION: result.id, run_tags.KEY: result.key}
    runs = store.runs({**tags, run_tags.KEY: result.key})
    if runs and runs[0].info.status == "FINISHED":
        return
    end = values.changed(folder / "result.json") / 1000
    if runs:
        run = runs[0]
    elif (live := _live(store, tags, result.id)) is not None:
        run = live
        store.client.set_tag(run.info.run_id, run_tags.KEY, result.key)
    else:
        spent = sum(stage.device_seconds for stage in result.stages)
        run = store.create(f"promotion {_next(store, tags)}", {**tags, **own}, end - spent)
        store.client.log_inputs(run.info.run_id, datasets=[data])
    start = run.info.start_time
    series = [
        *evaluations(result.curve, folder / result.id, start),
        *training_series(folder / result.id, start),
    ]
    last = store.last_steps(run.info.run_id, (name for name, *_ in series))
    number = (run.info.run_name or "").split(SEPARATOR)[0]
    store.client.update_run(run.info.run_id, name=promotion_name(result, objective, number))
    store.log(
        run.info.run_id,
        params=values.promotion_params(result),
        metrics=[
            *values.promotion_finals(result, objective, round(end * 1000)),
            *_later(series, last),
        ],
        tags={run_tags.NOTE: promotion_page(result, read_watched(folder / result.id))},
    )
    for path in sorted(folder.glob("*.json")):
        store.client.log_artifact(run.info.run_id, str(path))
    registered_model.register(store, study, result, folder, run.info.run_id, artifact)
    store.end(run.info.run_id, "FINISHED", end)


class LivePromotion:
    """The run of a promotion while its models train; `show_promotion` takes it over.

    A training that goes on from a checkpoint reports some steps again. Of those MLflow keeps what
    it was given first, so that a series has one value at a step.

    Args:
        store: the MLflow to show it in.
        tags: as of `show_promotion`.
        data: the corpus, as an input.
        folder: of the promotion: a training's folder each, named by its id.
    """

    def __init__(
        self, store: RunStore, tags: Mapping[str, str], data: DatasetInput, folder: Path
    ) -> None:
        self._store, self._folder = store, folder
        own = {**tags, run_tags.PROMOTION: folder.name}
        run = _live(store, tags, folder.name)
        if run is None:
            name = SEPARATOR.join((f"promotion {_next(store, tags)}", "training"))
            run = store.create(name, own, time.time())
            store.client.log_inputs(run.info.run_id, datasets=[data])
        elif run.info.status != "RUNNING":
            store.client.update_run(run.info.run_id, status="RUNNING")
        self._run, self._start = run.info.run_id, run.info.start_time
        self._last: dict[str, int] = {}  # step of each metric; asked for where it is first needed

    def show(self) -> None:
        """Show what its trainings reported since the last time."""
        series = list(training_series(self._folder, self._start))
        names = {name for name, *_ in series} - self._last.keys()
        self._last |= dict.fromkeys(names, -1) | self._store.last_steps(self._run, names)
        new = _later(series, self._last)
        warned = warnings_markdown(read_watched(self._folder).warnings)
        note = {run_tags.NOTE: page([warned], RUN)} if warned else {}
        self._store.log(self._run, metrics=new, tags=note)
        self._last |= {name: step for name, _, step, _ in new}

    def stopped(self) -> None:
        """Close the run: its promotion has not ended, and no active driver trains it."""
        self._store.end(self._run, "KILLED", time.time())


def _later(series: Sequence[Metric], last: Mapping[str, int]) -> list[Metric]:
    """Those points of `series` that come after the last step that is shown of their metric."""
    return [point for point in series if point[2] > last.get(point[0], -1)]


def _live(store: RunStore, tags: Mapping[str, str], promotion: str) -> Run | None:
    """The run of a promotion that has not ended; of several, the oldest."""
    runs = store.runs({**tags, run_tags.PROMOTION: promotion})
    return next((run for run in runs if run_tags.KEY not in run.data.tags), None)


def _next(store: RunStore, tags: Mapping[str, str]) -> int:
    return len(store.runs(tags)) + 1


def promotion_page(result: Promotion, seen: Watched) -> str:
    """How the model was made, its metrics, and what was warned of."""
    made, mixture = verbatim(made_by(result)), verbatim(result.mixture_name)
    head = f"**{made}**, on the *{mixture}* mixture."
    return page([head, promotion_markdown(result), warnings_markdown(seen.findings)], RUN)


def warnings_markdown(warnings: Sequence[str]) -> str:
    """The warnings that the evaluations of a full run gave; empty without any."""
    return "\n\n".join(f"**Warning:** {verbatim(text)}." for text in warnings)
