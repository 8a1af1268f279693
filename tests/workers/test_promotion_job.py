"""An upcycled model is scored before its training as it will be scored after it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.models.upcycling.method import Method
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.proxies.evaluation import evaluate
from mixopt.workers.promotion_job import Upcycling, upcycle

DENSE = ModelConfig(width=16, layers=1, heads=2, expert_width=16, experts=1, experts_per_token=1)
RECIPE = Recipe(sequence_length=16, precision="bf16", evaluation_tokens=512, evaluation_share=None)


def test_it_is_evaluated_in_the_precision_that_it_is_trained_in(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    shape = dataclasses.replace(
        DENSE, experts=2, experts_per_token=2, vocab_size=text_corpus.vocab_size
    )
    dense = shape.as_dense()
    save_state(tmp_path / "seed.safetensors", Transformer(dense, (3,)).proxy_state(0))
    ask = Upcycling(
        method=Method("sparse"),
        seed_model=str(tmp_path / "seed.safetensors"),
        expert_models={},
        dense=dataclasses.asdict(dense),
        model=dataclasses.asdict(shape),
        recipe=dataclasses.asdict(RECIPE),
        corpus=str(text_corpus.path),
        folder=str(tmp_path / "moe"),
        seed=0,
        verified=str(tmp_path / "verified"),
    )
    before = upcycle(ask, threads=1, device="cpu")["metrics"]
    state, _ = load_state(tmp_path / "moe" / "model.safetensors")
    scores = {}
    for dtype in (torch.bfloat16, torch.float32):
        model = Transformer(shape, compute_dtype=dtype)
        model.load_proxy_state(state)
        (found,) = evaluate(model, text_corpus, text_corpus.validation_domains, 512, 16)
        scores[dtype] = found.metrics
    assert before == pytest.approx(scores[torch.bfloat16], abs=1e-6)
    assert before != pytest.approx(scores[torch.float32], abs=1e-6)
