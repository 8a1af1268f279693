"""A promoted model in MLflow's model registry, under the alias `champion`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.pipelines.views.mlflow.mlflow_store import RunStore

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from mixopt.study.results import Promotion
    from mixopt.study.settings import Study

ALIAS = "champion"


def registered_name(study: Study) -> str:
    """The name that the promoted model of `study` is registered under."""
    return (study.promote.name if study.promote is not None else None) or study.name


def register(
    store: RunStore, study: Study, result: Promotion, folder: Path, run: str, digest: str
) -> None:
    """Register the exported model of a promotion and point `champion` at it.

    The weights go into a logged model of MLflow 3, which the version's source names: so that
    `mlflow.artifacts.download_artifacts("models:/NAME@champion")` works against a plain database
    and against a server alike.

    Args:
        store: the MLflow to register in.
        study: whose promotion it is.
        result: what the promotion measured.
        folder: the study's `promotion` folder, which the exported model lies below.
        run: id of the promotion's run.
        digest: identity of the result; a version that carries it is not made again.
    """
    path = folder / result.model
    if not path.is_dir():
        return
    name, client = registered_name(study), store.client
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(
            name, description=f"Mixture-of-experts model promoted by the mixopt study {study.name}."
        )
    versions = client.search_model_versions(f"name = '{name}'")
    same = [v for v in versions if v.tags.get("mixopt.promotion") == digest]
    version = same[0].version if same else _new_version(store, study, result, path, run, digest)
    client.set_registered_model_alias(name, ALIAS, version)


def _new_version(
    store: RunStore, study: Study, result: Promotion, path: Path, run: str, digest: str
) -> str:
    name = registered_name(study)
    logged = _logged_model(store, study, result, path, run)
    # A plain database resolves models:/ with MLflow's global client, which may look elsewhere; a
    # server resolves it itself, and refuses paths of its disk.
    remote = store.client.tracking_uri.startswith(("http://", "https://"))
    version = store.client.create_model_version(
        name,
        source=f"models:/{logged.model_id}" if remote else logged.artifact_location,
        run_id=run,
        model_id=logged.model_id,
        tags={"mixopt.promotion": digest, "mixopt.study": study.name},
        description=_description(result),
    )
    return str(version.version)


def _logged_model(
    store: RunStore, study: Study, result: Promotion, path: Path, run: str
) -> LoggedModel:
    """The logged model of the promotion's run, uploaded now unless an earlier attempt did it."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    client = store.client
    ready = f"source_run_id = '{run}' AND status = 'READY'"
    found = client.search_logged_models([store.experiment], filter_string=ready)
    if found:
        return found[0]
    logged = client.create_logged_model(
        store.experiment,
        name=registered_name(study),
        source_run_id=run,
        model_type="mixture-of-experts",
    )
    client.log_model_artifacts(logged.model_id, str(path))
    card = Model(run_id=run, model_id=logged.model_id)
    card.add_flavor("mixopt", format="huggingface", study=study.name, method=result.method)
    with tempfile.TemporaryDirectory() as folder:
        card.save(str(Path(folder) / "MLmodel"))
        client.log_model_artifact(logged.model_id, str(Path(folder) / "MLmodel"))
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, result.tokens)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _description(result: Promotion) -> str:
    after = ", ".join(f"{k} {v:.4f}" for k, v in result.after.items())
    return (
        f"Upcycled by {result.method}, {result.tokens:,} tokens, {result.model_params:,} "
        f"parameters, {result.active_params:,} of them active per token."
        + (f" {after}." if after else "")
    )
