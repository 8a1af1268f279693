"""A model that transformers runs scores as the same model of ours does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mixopt.core.errors import CheckpointError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.io.files import write_json
from mixopt.io.markers import SHAPE, WEIGHTS
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies import foreign as module
from mixopt.proxies.checkpoint import save_state
from mixopt.proxies.evaluation import evaluate
from mixopt.proxies.foreign import ForeignModel
from mixopt.proxies.stored_models import load_stored
from tests.mixopt.models.families.test_export import export, trained


@pytest.fixture(scope="module")
def models(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Path]:
    """A mixture of experts of ours, and the same as transformers loads it."""
    config = ModelConfig(width=32, heads=4, experts=4, vocab_size=corpus.vocab_size)
    model = trained(config)
    return model, export(model, tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("logits_at_once", [1, 700, 2**24])
def test_it_scores_and_routes_as_ours(
    corpus: Corpus,
    models: tuple[Transformer, Path],
    logits_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", logits_at_once)
    ours, folder = models
    foreign = ForeignModel.load(folder, torch.float32)
    (mine,) = evaluate(ours, corpus, ("d0", "d1"), 700, 16, each_token_of=("d1",))
    (other,) = evaluate(foreign, corpus, ("d0", "d1"), 700, 16, each_token_of=("d1",))
    assert other.metrics == pytest.approx(mine.metrics, rel=1e-5)
    np.testing.assert_allclose(
        other.token_losses["loss/d1"], mine.token_losses["loss/d1"], atol=1e-4
    )
    for domain, loads in mine.loads.items():
        assert other.loads[domain] == pytest.approx(loads, abs=0.01)
        assert other.entropies[domain] == pytest.approx(mine.entropies[domain], abs=1e-3)
        assert other.dropped[domain] == 0


def test_it_masks_documents_as_ours_does(corpus: Corpus, models: tuple[Transformer, Path]) -> None:
    ours, folder = models
    end = corpus.end_of_text_id
    config = dataclasses.replace(ours.config, document_mask=True, end_of_text=end)
    masked = Transformer(config)
    masked.load_proxy_state(ours.proxy_state())
    ids = torch.arange(2 * 20).view(1, 2, 20) % ours.config.vocab_size
    ids[0, 0, [0, 7, 8, 13]] = end
    foreign = ForeignModel.load(folder, torch.float32, end_of_text=end)
    mine, _ = masked.nats(ids[..., :-1], ids[..., 1:])
    other, _ = foreign.nats(ids[..., :-1], ids[..., 1:])
    assert torch.allclose(mine, other, atol=1e-4)
    without, _ = ours.nats(ids[..., :-1], ids[..., 1:])
    assert not torch.allclose(mine[0, 7:19], without[0, 7:19], atol=1e-2)


def test_stored_models_of_ours_mask_documents_as_they_were_trained(
    models: tuple[Transformer, Path], tmp_path: Path
) -> None:
    ours, exported = models
    write_json(tmp_path / SHAPE, ours.config.to_json())
    save_state(tmp_path / WEIGHTS, ours.proxy_state())
    cpu = torch.device("cpu")
    own = load_stored(tmp_path, "fp32", cpu, end_of_text=0)
    checkpoint = load_stored(exported, "fp32", cpu, end_of_text=0)
    assert isinstance(own, Transformer)
    assert isinstance(checkpoint, Transformer)
    assert own.config == ours.config  # not masked
    assert (checkpoint.config.document_mask, checkpoint.config.end_of_text) == (True, 0)


def test_padding_of_questions_is_seen_by_nobody(models: tuple[Transformer, Path]) -> None:
    ours, folder = models
    ids = torch.arange(2 * 12).view(1, 2, 12) % ours.config.vocab_size
    real = torch.ones(1, 2, 11, dtype=torch.bool)
    real[0, 1, 7:] = False
    foreign = ForeignModel.load(folder, torch.float32)
    mine, _ = ours.nats(ids[..., :-1], ids[..., 1:], real)
    other, _ = foreign.nats(ids[..., :-1], ids[..., 1:], real)
    kept = real.flatten()
    assert torch.allclose(mine[0, kept], other[0, kept], atol=1e-4)


def test_a_folder_that_is_no_model_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        ForeignModel.load(tmp_path, torch.float32)


def test_questions_are_answered_too(corpus: Corpus, models: tuple[Transformer, Path]) -> None:
    ours, folder = models
    rows = [np.arange(n, dtype=np.int64) % corpus.vocab_size for n in (9, 12, 7, 10)]
    questions = Questions(
        tokens=np.concatenate(rows).astype(np.int32),
        starts=np.array([0, 9, 21, 28, 38]),
        contexts=np.array([5, 5, 3, 3]),
        sizes=np.array([4, 7, 4, 7]),
        first=np.array([0, 2, 4]),
        right=np.array([0, 3]),
        lines=np.array([1, 2]),
    )
    foreign = ForeignModel.load(folder, torch.float32)
    (mine,) = evaluate(ours, corpus, (), 100, 16, tasks={"quiz": questions})
    (other,) = evaluate(foreign, corpus, (), 100, 16, tasks={"quiz": questions})
    assert other.metrics == pytest.approx(mine.metrics, rel=1e-4)
