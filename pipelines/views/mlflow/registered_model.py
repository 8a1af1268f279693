"""A promoted model in MLflow's model registry, under the alias `champion` or `challenger`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.io.markers import TOKENIZER as TOKENIZER_FILE
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.links import run_link
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.mlflow.model_page import version_markdown
from mixopt.study import identity
from mixopt.study.champion import CHALLENGER, CHAMPION, ChampionDecision, Standing
from mixopt.study.records import read_verdict

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

    from mixopt.study.results import Promotion
    from mixopt.study.settings import Study

TOKENIZER = "mixopt.tokenizer"
# Given a promotion and a folder that is not there: writes its model there, and returns where it
# lies, which is elsewhere if the model stays in our own format.
Artifact = Callable[["Promotion", Path], Path]
FOLLOWED = "mixopt.followed_by"  # of a former champion: the version that took its place
LOGGED = "models:/"  # with a logged model's id: the source of a version on a server


@dataclass(frozen=True)
class Registered:
    """What the registry says of a promotion's model.

    Attributes:
        version: of the registered model.
        decision: key of the decision that was applied to it; empty before one.
        standing: the champion, which may be this version itself; None where there is none.
    """

    version: str
    decision: str
    standing: Standing | None


def registered_name(study: Study) -> str:
    """The name that the promoted model of `study` is registered under."""
    return (study.promote.name if study.promote is not None else None) or study.name


def register(
    store: RunStore,
    study: Study,
    result: Promotion,
    folder: Path,
    run: str,
    artifact: Artifact,
) -> None:
    """Register the exported model of a promotion; `apply` gives it an alias.

    The weights go into a logged model of MLflow 3, which the version's source names: so that
    `mlflow.artifacts.download_artifacts("models:/NAME@champion")` works against a plain database
    and against a server alike.

    Args:
        store: the MLflow to register in.
        study: whose promotion it is.
        result: what the promotion measured.
        folder: the study's `promotion` folder, which the exported model lies below.
        run: id of the promotion's run.
        artifact: writes the model as others load it.
    """
    path = folder / result.model
    if not path.is_dir():
        return
    name, client = registered_name(study), store.client
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=_loading(name))
    if _version(store, name, result.key) is None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".registered.") as place:
            _new_version(store, study, result, artifact(result, Path(place) / "model"), run)


def registered(store: RunStore, study: Study, promotion: str) -> Registered | None:
    """What the registry says of the promotion with that key; None if it has no version."""
    name = registered_name(study)
    version = _version(store, name, promotion)
    if version is None:
        return None
    champion = _by_alias(store, name, CHAMPION)
    standing = None if champion is None else _standing(champion)
    return Registered(str(version.version), version.tags.get(run_tags.DECISION, ""), standing)


def _standing(champion: ModelVersion) -> Standing:
    tags = champion.tags
    return Standing(
        version=str(champion.version),
        promotion=tags.get(run_tags.KEY, ""),
        study=tags.get(run_tags.STUDY, ""),
        tokenizer=tags.get(TOKENIZER, ""),
    )


def download_champion(store: RunStore, study: Study, folder: Path) -> None:
    """Copy the artifact of the standing champion into `folder`, which is not made if it is gone."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    champion = _by_alias(store, registered_name(study), CHAMPION)
    assert champion is not None  # the caller has seen it
    client, location = store.client, str(champion.source)
    if location.startswith(LOGGED):  # would be looked for in MLflow's global store
        location = client.get_logged_model(location.removeprefix(LOGGED)).artifact_location
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        found = download_artifacts(
            artifact_uri=location, dst_path=str(part), tracking_uri=client.tracking_uri
        )
        Path(found).rename(folder)
    except (MlflowException, OSError):  # gone, or unreachable: the caller can tell which
        return
    finally:
        shutil.rmtree(part, ignore_errors=True)


def apply(store: RunStore, study: Study, decision: ChampionDecision) -> None:
    """Give the version of a decided promotion its alias, and the decision as tags, which is last.

    A version that becomes champion is no challenger any more; the one before it is told by which
    version it was followed.
    """
    name, client = registered_name(study), store.client
    version = _version(store, name, decision.promotion)
    if version is None:
        return
    number, before = str(version.version), _by_alias(store, name, CHAMPION)
    if decision.alias == CHAMPION and before is not None and str(before.version) != number:
        client.set_model_version_tag(name, str(before.version), FOLLOWED, f"version {number}")
    client.set_registered_model_alias(name, decision.alias, number)
    other = CHALLENGER if decision.alias == CHAMPION else CHAMPION
    if str(_aliases(store, name).get(other, "")) == number:
        client.delete_registered_model_alias(name, other)
    tags = {
        "mixopt.reason": decision.reason,
        "mixopt.decided_by": decision.by,
        **({"mixopt.against": f"version {decision.against}"} if decision.against else {}),
        run_tags.DECISION: decision.key,
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value[:5000])


def _version(store: RunStore, name: str, promotion: str) -> ModelVersion | None:
    """The version that was made of the promotion with that key."""
    versions = store.client.search_model_versions(f"name = '{name}'")
    same = [v for v in versions if v.tags.get(run_tags.KEY) == promotion]
    return same[0] if same else None


def _aliases(store: RunStore, name: str) -> dict[str, str]:
    return dict(store.client.get_registered_model(name).aliases)


def _by_alias(store: RunStore, name: str, alias: str) -> ModelVersion | None:
    number = _aliases(store, name).get(alias)
    return None if number is None else store.client.get_model_version(name, str(number))


def _loading(name: str) -> str:
    return f"""\
Mixtures of experts that mixopt promoted. The version with the alias *{CHAMPION}* is the one to use;
a *{CHALLENGER}* was not shown to be better.

```python
import mlflow

folder = mlflow.artifacts.download_artifacts("models:/{name}@{CHAMPION}")
```"""


def _new_version(store: RunStore, study: Study, result: Promotion, path: Path, run: str) -> None:
    name = registered_name(study)
    logged = _logged_model(store, study, result, path, run)
    # A plain database resolves models:/ with MLflow's global client, which may look elsewhere; a
    # server resolves it itself, and refuses paths of its disk.
    remote = store.client.tracking_uri.startswith(("http://", "https://"))
    store.client.create_model_version(
        name,
        source=f"{LOGGED}{logged.model_id}" if remote else logged.artifact_location,
        run_id=run,
        model_id=logged.model_id,
        tags=_tags(study, result),
        description=_page(store, study, result, run),
    )


def _page(store: RunStore, study: Study, result: Promotion, run: str) -> str:
    verdict, owner = read_verdict(study.home), identity.read(study.home)
    if verdict is not None and not verdict.mixture.same_as(result.mixture):
        verdict = None  # the study has judged again since
    return version_markdown(
        study.name,
        "" if owner is None else owner.id,
        result,
        verdict,
        study.mixture_objective(),
        run_link("", store.experiment, run).removeprefix("/"),
    )


def _tags(study: Study, result: Promotion) -> dict[str, str]:
    """What made the model, as text that a registry's search understands."""
    return {
        run_tags.STUDY: study.name,
        run_tags.PROMOTION: result.id,
        run_tags.KEY: result.key,
        TOKENIZER: str(result.files.get(TOKENIZER_FILE, {}).get("sha256", "")),
        "mixopt.corpus": result.corpus_hash,
        "mixopt.method": result.method,
        "mixopt.trained": str(result.trained).lower(),
        "mixopt.candidate": result.mixture_name,
        "mixopt.mixture": json.dumps(result.mixture.as_dict())[:5000],
        "mixopt.version": result.mixopt,
        **(
            {}
            if result.receipt is None
            else {"mixopt.receipt": json.dumps(result.receipt.to_json())[:5000]}
        ),
    }


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
        model_type="mixture-of-experts" if result.upcycled else "own-trainer",
    )
    client.log_model_artifacts(logged.model_id, str(path))
    card = Model(run_id=run, model_id=logged.model_id)
    layout = "huggingface" if result.upcycled else "own trainer's"
    card.add_flavor("mixopt", format=layout, study=study.name, method=result.method)
    with tempfile.TemporaryDirectory() as folder:
        card.save(str(Path(folder) / "MLmodel"))
        client.log_model_artifact(logged.model_id, str(Path(folder) / "MLmodel"))
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, result.tokens)])
    return client.finalize_logged_model(logged.model_id, "READY")
