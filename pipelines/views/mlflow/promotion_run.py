"""The run of a promotion in MLflow, beside the trials' runs; its model goes to the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixopt.pipelines.views.mlflow import registered_model, run_tags
from mixopt.pipelines.views.mlflow import tracked_values as values
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore, curve_metrics
from mixopt.pipelines.views.mlflow.page import RUN, page
from mixopt.pipelines.views.mlflow.registered_model import Artifact
from mixopt.pipelines.views.mlflow.run_names import promotion_name
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import made_by, promotion_markdown

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

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
    else:
        number = len(store.runs(tags)) + 1
        spent = sum(stage.device_seconds for stage in result.stages)
        name = promotion_name(result, objective, number)
        run = store.create(name, {**tags, **own}, end - spent)
        store.client.log_inputs(run.info.run_id, datasets=[data])
    store.log(
        run.info.run_id,
        params=values.promotion_params(result),
        metrics=[
            *values.promotion_finals(result, objective, round(end * 1000)),
            *curve_metrics(list(result.curve), run.info.start_time),
        ],
        tags={run_tags.NOTE: promotion_page(result)},
    )
    for path in sorted(folder.glob("*.json")):
        store.client.log_artifact(run.info.run_id, str(path))
    registered_model.register(store, study, result, folder, run.info.run_id, artifact)
    store.end(run.info.run_id, "FINISHED", end)


def promotion_page(result: Promotion) -> str:
    """How the model was made, and its metrics."""
    made, mixture = verbatim(made_by(result)), verbatim(result.mixture_name)
    return page([f"**{made}**, on the *{mixture}* mixture.", promotion_markdown(result)], RUN)
