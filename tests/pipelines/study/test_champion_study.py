"""The standing champion is evaluated on a new study's own text before it loses its place.

Real models, a real Ray and a real MLflow store; only how the models came about is made up.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from mixopt.core.errors import StudyError
from mixopt.corpus.shards import Corpus
from mixopt.io import files, markers
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State, Transformer
from mixopt.pipelines.study.champion import approve_promotion, decide_champion
from mixopt.pipelines.study.session import open_session
from mixopt.proxies.checkpoint import save_state
from mixopt.selection.results import Candidate, Decision
from mixopt.study.locked import lock_settings
from mixopt.study.records import read_promotion
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import promotion_of, verdict_of
from tests.pipelines.whole_study import MODEL, RECIPE, SMALL

# two promotions, a registry and a person: three minutes; `test_champion.py` holds the rule
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]
NAME = "shared-model"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database, copied by every test: making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def states(text_corpus: Corpus) -> dict[str, State]:
    """A model that has learned a little of the text, and one that has not."""
    shape = ModelConfig(**MODEL, vocab_size=text_corpus.vocab_size)
    fresh, learned = Transformer(shape, (0,)), Transformer(shape, (0,))
    optimizer = torch.optim.Adam(learned.parameters(), 1e-2)
    stream = np.concatenate([text_corpus.train(name)[:4096] for name in text_corpus.domains])
    windows = torch.from_numpy(stream[: len(stream) // 33 * 33].astype(np.int64)).view(1, -1, 33)
    for _ in range(30):
        losses = learned.loss(windows[..., :-1], windows[..., 1:])
        optimizer.zero_grad()
        losses.nats_K.sum().backward()
        optimizer.step()
    return {"fresh": fresh.proxy_state(0), "learned": learned.proxy_state(0)}


@pytest.fixture
def made(tmp_path: Path, store: Path, text_corpus: Corpus, states: dict[str, State]) -> Any:
    """Make a study whose promotion ended with one of `states`; all share a registered model."""
    shutil.copy(store, tmp_path / "mlflow.db")

    def make(name: str, state: str, improved: bool = True, **promote: Any) -> Study:
        settings = {
            "name": name,
            "corpus": str(text_corpus.path),
            "objective": {"notes": 1.0},
            "proxy": {"tokens": 2560, "model": MODEL, "recipe": RECIPE},
            "promote": {**SMALL["promote"], "name": NAME, **promote},
            "mlflow": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
            "ray": {"address": "local"},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        study = load_study(tmp_path / f"{name}.yaml")
        lock_settings(study, text_corpus)
        model = study.home / "promotion" / "model"
        save_state(model / "model.safetensors", states[state])
        asked = settings["promote"]["model"]  # type: ignore[index]
        shape = ModelConfig(**asked, vocab_size=text_corpus.vocab_size)
        files.write_json(model / "model.json", dataclasses.asdict(shape))
        shutil.copy(text_corpus.tokenizer_path, model / "tokenizer.json")
        natural = text_corpus.natural
        promotion = promotion_of(
            natural, id=name, files=markers.described(model), corpus_hash=text_corpus.hash
        )
        files.write_json(study.home / "promotion" / "result.json", promotion.to_json())
        candidates = (Candidate("natural", natural), Candidate("found", natural))
        decision = Decision(
            baseline="natural",
            promoted="found" if improved else "natural",
            improved=improved,
            reason="",
            confidence=0.9,
            level=0.1,
            look=1,
            looks=1,
            candidates=candidates,
        )
        files.write_json(study.home / "verdict.json", verdict_of(decision).to_json())
        return study

    return make


def sync(study: Study) -> None:
    with open_session(study.path) as session:
        assert session.tracker.study_started()
        assert session.tracker.sync(session.ledger.trials())
        decide_champion(session)


def client(study: Study) -> MlflowClient:
    return MlflowClient(study.mlflow.uri, study.mlflow.uri)


def aliases(study: Study) -> dict[str, str]:
    """Alias → name of the study whose model has it."""
    registered = client(study).get_registered_model(NAME)
    return {
        alias: client(study).get_model_version(NAME, version).tags["mixopt.study"]
        for alias, version in registered.aliases.items()
    }


def decision_of(study: Study) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study.home / "promotion" / "champion.json").read_text())
    return found


def tags_of(study: Study) -> dict[str, str]:
    versions = client(study).search_model_versions(f"name = '{NAME}'")
    (own,) = [v for v in versions if v.tags["mixopt.study"] == study.name]
    return dict(own.tags)


def test_a_better_model_takes_the_place_and_a_worse_one_does_not(made: Any, ray_here: None) -> None:
    first = made("first", "fresh")
    sync(first)
    assert aliases(first) == {"champion": "first"}
    better = made("better", "learned")
    sync(better)
    assert aliases(better) == {"champion": "better"}
    decision = decision_of(better)
    assert decision["difference"] < -1.645 * decision["standard_error"] < 0
    worse = made("worse", "fresh")
    sync(worse)
    assert aliases(worse) == {"champion": "better", "challenger": "worse"}
    assert decision_of(worse)["difference"] == pytest.approx(-decision["difference"])
    sync(first)  # what stood before does not come back
    assert aliases(first) == {"champion": "better", "challenger": "worse"}


def test_an_equal_model_is_within_the_noise(made: Any, ray_here: None) -> None:
    sync(made("one", "learned"))
    again = made("again", "learned")
    sync(again)
    assert aliases(again) == {"champion": "one", "challenger": "again"}
    assert decision_of(again)["difference"] == 0


def test_a_version_says_what_made_it(made: Any, text_corpus: Corpus) -> None:
    study = made("first", "fresh")
    sync(study)
    tags, promotion = tags_of(study), read_promotion(study.home)
    assert promotion is not None
    assert tags["mixopt.corpus"] == text_corpus.hash
    assert tags["mixopt.tokenizer"] == text_corpus.tokenizer_hash
    assert tags["mixopt.method"] == "branch-train-mix"
    assert json.loads(tags["mixopt.mixture"]) == promotion.mixture.as_dict()
    assert json.loads(tags["mixopt.receipt"]) == promotion.receipt.to_json()
    assert tags["mixopt.version"]
    assert tags["mixopt.reason"] == "there was no champion before it"


def test_a_promoted_baseline_is_a_challenger(made: Any) -> None:
    study = made("first", "fresh", improved=False)
    sync(study)
    assert aliases(study) == {"challenger": "first"}


def test_a_champion_whose_files_are_gone_keeps_its_place(made: Any, ray_here: None) -> None:
    first = made("first", "fresh")
    sync(first)
    version = client(first).get_model_version_by_alias(NAME, "champion")
    shutil.rmtree(version.source.removeprefix("file://"))
    later = made("later", "learned")
    sync(later)
    assert aliases(later) == {"champion": "first", "challenger": "later"}
    assert "cannot be evaluated on this text: its files are gone" in decision_of(later)["reason"]


def test_a_champion_with_another_tokenizer_keeps_its_place(made: Any) -> None:
    first = made("first", "fresh")
    sync(first)
    version = client(first).get_model_version_by_alias(NAME, "champion")
    client(first).set_model_version_tag(NAME, version.version, "mixopt.tokenizer", "other")
    later = made("later", "learned")
    sync(later)
    assert aliases(later) == {"champion": "first", "challenger": "later"}
    assert "another tokenizer" in decision_of(later)["reason"]


def test_a_person_decides_where_the_study_says_so(
    made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    study = made("first", "fresh", approve="manual")
    sync(study)
    assert aliases(study) == {"challenger": "first"}
    assert "waits for `mixopt approve`" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(StudyError, match="no reason is given"):
        approve_promotion(study.path, "  ")
    approve_promotion(study.path, "evaluated by hand")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"approved as champion: {study.promote.name or study.name}, version 1" in shown
    assert aliases(study) == {"champion": "first"}
    assert (decision_of(study)["by"], decision_of(study)["why"]) == ("person", "evaluated by hand")
    assert tags_of(study)["mixopt.decided_by"] == "person"
    sync(study)  # and it stays
    assert aliases(study) == {"champion": "first"}
    with pytest.raises(StudyError, match="champion already"):
        approve_promotion(study.path, "again")


def test_an_approval_while_mlflow_is_down_is_shown_by_the_next_sync(made: Any) -> None:
    study = made("first", "fresh", approve="manual")
    database = Path(study.mlflow.uri.removeprefix("sqlite:///"))
    kept = database.read_bytes()
    database.write_bytes(b"no database" * 100)
    approve_promotion(study.path, "evaluated by hand")
    assert decision_of(study)["alias"] == "champion"
    database.write_bytes(kept)
    sync(study)
    assert aliases(study) == {"champion": "first"}
    assert tags_of(study)["mixopt.reason"] == "approved: evaluated by hand"


def test_without_a_promotion_there_is_nothing_to_approve(made: Any) -> None:
    study = made("first", "fresh")
    (study.home / "promotion" / "result.json").unlink()
    with pytest.raises(StudyError, match="no model is promoted yet"):
        approve_promotion(study.path, "please")


def test_a_registry_that_was_lost_is_rebuilt_by_the_decision(made: Any, store: Path) -> None:
    study = made("first", "fresh")
    sync(study)
    before = decision_of(study)
    shutil.copy(store, study.mlflow.uri.removeprefix("sqlite:///"))
    sync(study)
    assert aliases(study) == {"champion": "first"}
    assert decision_of(study) == before


def test_the_champion_is_downloaded_by_its_alias(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made("first", "fresh")
    sync(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study.mlflow.uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", study.mlflow.uri)
    folder = Path(
        mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion", dst_path=str(tmp_path))
    )
    assert (folder / "model.safetensors").exists()


def test_the_artifact_is_what_transformers_loads_and_a_champion_is_read_from_it(
    made: Any, tmp_path: Path, text_corpus: Corpus, ray_here: None
) -> None:
    shape = {**MODEL, "experts_per_token": 2}  # gates that sum to 1: mixtral has a home for them
    first = made("first", "fresh", model=shape)
    sync(first)
    version = client(first).get_model_version_by_alias(NAME, "champion")
    folder = Path(version.source.removeprefix("file://"))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mixtral"
    assert not list(folder.parent.parent.glob("**/.registered*"))
    later = made("later", "fresh", model=shape)
    sync(later)
    assert decision_of(later)["difference"] == pytest.approx(0, abs=1e-6)
    assert aliases(later) == {"champion": "first", "challenger": "later"}
