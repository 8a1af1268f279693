"""A promoted model in MLflow's model registry, under the alias `champion`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.pipelines.views.mlflow.mlflow_store import RunStore

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from mixopt.study.settings import Study

ALIAS = "champion"


def registered_name(study: Study) -> str:
    """The name that the promoted model of `study` is registered under."""
    return (study.promote.name if study.promote is not None else None) or study.name


def register(
    store: RunStore, study: Study, result: Mapping[str, Any], folder: Path, run: str, digest: str
) -> None:
    """Register the exported model of a promotion and point `champion` at it.

    The weights go into a logged model of MLflow 3, which the version's source names: so that
    `mlflow.artifacts.download_artifacts("models:/NAME@champion")` works against a plain database
    and against a server alike.

    Args:
        store: the MLflow to register in.
        study: whose promotion it is.
        result: what `promotion/result.json` holds; `model` is the exported folder.
        folder: the promotion's folder, which a relative `model` is relative to.
        run: id of the promotion's run.
        digest: identity of the result; a version that carries it is not made again.
    """
    path = folder / str(result.get("model") or "")
    if not result.get("model") or not path.is_dir():
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
    store: RunStore, study: Study, result: Mapping[str, Any], path: Path, run: str, digest: str
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
    store: RunStore, study: Study, result: Mapping[str, Any], path: Path, run: str
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
    card.add_flavor("mixopt", format="huggingface", study=study.name, method=result.get("method"))
    with tempfile.TemporaryDirectory() as folder:
        card.save(str(Path(folder) / "MLmodel"))
        client.log_model_artifact(logged.model_id, str(Path(folder) / "MLmodel"))
    step = int(result.get("tokens") or 0)
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _description(result: Mapping[str, Any]) -> str:
    parts = [f"Upcycled by {result.get('method', 'an unnamed method')}"]
    if result.get("tokens"):
        parts.append(f"{int(result['tokens']):,} tokens")
    if result.get("model_params"):
        parts.append(f"{int(result['model_params']):,} parameters")
    if result.get("active_params"):
        parts.append(f"{int(result['active_params']):,} of them active per token")
    after = ", ".join(f"{k} {v:.4f}" for k, v in (result.get("after") or {}).items())
    return ", ".join(parts) + "." + (f" {after}." if after else "")
