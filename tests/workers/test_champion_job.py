"""A champion is read in our own format or in Hugging Face's, or it is said why it cannot be."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mixopt.core.errors import FileError
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import save_state
from mixopt.proxies.evaluation import validation_windows
from mixopt.workers.champion_job import Challenge, challenge
from tests.mixopt.models.families.made import logits, make
from tests.mixopt.models.families.test_export import export

SHAPE = ModelConfig(width=16, layers=1, heads=2, expert_width=16, experts=2, experts_per_token=2)
RECIPE = Recipe(sequence_length=16, precision="fp32", evaluation_tokens=512, evaluation_share=None)


def model(corpus: Corpus, seed: int, **changes: Any) -> Transformer:
    shape = dataclasses.replace(SHAPE, vocab_size=corpus.vocab_size, **changes)
    return Transformer(shape, (seed,))


def own(model: Transformer, folder: Path) -> Path:
    save_state(folder / "model.safetensors", model.proxy_state(0))
    files.write_json(folder / "model.json", dataclasses.asdict(model.config))
    return folder


def compared(
    corpus: Corpus,
    tmp_path: Path,
    standing: Path,
    seed: int = 0,
    weights: Mapping[str, float] = MappingProxyType({"law": 0.5, "notes": 0.5}),
) -> dict[str, Any]:
    ask = Challenge(
        new=str(own(model(corpus, seed), tmp_path / "new")),
        standing=str(standing),
        corpus=str(corpus.path),
        recipe=dataclasses.asdict(RECIPE),
        weights=dict(weights),
        weighed=(),
        verified=str(tmp_path / "verified"),
    )
    return challenge(ask, threads=1)


def test_a_model_does_not_differ_from_its_own_export(text_corpus: Corpus, tmp_path: Path) -> None:
    hugging_face = tmp_path / "exported"
    hugging_face.mkdir()
    export(model(text_corpus, 0), hugging_face)
    found = compared(text_corpus, tmp_path, hugging_face)
    assert found["mean"] == pytest.approx(0, abs=1e-6)
    assert found["first"] == pytest.approx(found["second"], abs=1e-6)
    assert found["windows"] == 2 * 512 // 16


def test_another_model_differs_alike_in_both_formats(text_corpus: Corpus, tmp_path: Path) -> None:
    other = model(text_corpus, 1, width=32)
    hugging_face = tmp_path / "exported"
    hugging_face.mkdir()
    export(other, hugging_face)
    by_export = compared(text_corpus, tmp_path, hugging_face)
    by_ours = compared(text_corpus, tmp_path, own(other, tmp_path / "own"))
    assert by_ours["mean"] != 0
    assert by_export == pytest.approx(by_ours, abs=1e-5)


def test_a_champion_that_cannot_be_read_is_no_failure(text_corpus: Corpus, tmp_path: Path) -> None:
    assert "cannot be loaded" in compared(text_corpus, tmp_path, tmp_path / "empty")["unreadable"]
    cut = own(model(text_corpus, 1), tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be loaded" in compared(text_corpus, tmp_path, cut)["unreadable"]


def test_another_vocabulary_is_not_compared(text_corpus: Corpus, tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, vocab_size=77)
    other = own(Transformer(shape, (0,)), tmp_path / "other")
    found = compared(text_corpus, tmp_path, other)
    assert found == {"unreadable": f"its vocabulary has 77 tokens, not {text_corpus.vocab_size:,}"}


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_a_champion_that_is_not_ours_is_run_by_transformers(
    kind: str, text_corpus: Corpus, tmp_path: Path
) -> None:
    spare = text_corpus.vocab_size + 8  # rows that no token has
    standing = make(kind, tmp_path / "standing", vocab_size=spare)
    found = compared(text_corpus, tmp_path, standing, weights={"law": 1.0})
    windows = validation_windows(text_corpus.validation("law"), 512, 16, "law")
    ids = torch.from_numpy(windows)
    nats = F.cross_entropy(
        logits(standing, ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
    )
    law = float(nats) / math.log(2) / float(text_corpus.token_bytes[windows[:, 1:]].sum())
    assert found["second"] == pytest.approx(law, rel=1e-5)


def test_a_champions_file_imports_nothing(text_corpus: Corpus, tmp_path: Path) -> None:
    other = own(model(text_corpus, 1), tmp_path / "other")
    values = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**values, "router": "antigravity:Router"}))
    assert "is no part of mixopt" in compared(text_corpus, tmp_path, other)["unreadable"]


def test_a_new_model_that_is_not_there_is_a_failure(text_corpus: Corpus, tmp_path: Path) -> None:
    ask = Challenge(
        new=str(tmp_path / "none"),
        standing=str(own(model(text_corpus, 1), tmp_path / "standing")),
        corpus=str(text_corpus.path),
        recipe=dataclasses.asdict(RECIPE),
        weights={"law": 1.0},
        weighed=(),
        verified=str(tmp_path / "verified"),
    )
    with pytest.raises(FileError, match=r"model\.json"):
        challenge(ask, threads=1)
