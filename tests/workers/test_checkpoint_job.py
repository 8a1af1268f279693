"""Checkpoints are upcycled and evaluated once, whatever stops the worker in between."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mixopt.core.errors import CheckpointError
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.upcycling.folders import Request
from mixopt.models.upcycling.receipt import Receipt
from mixopt.proxies.evaluation import validation_windows
from mixopt.workers.checkpoint_job import CheckpointUpcycling, upcycle_checkpoint
from tests.mixopt.models.families.made import logits
from tests.pipelines.study.imported import branched, checkpoint

RECIPE = Recipe(sequence_length=16, precision="fp32", evaluation_tokens=512, evaluation_share=None)


def asked(corpus: Corpus, folder: Path, **request: Any) -> CheckpointUpcycling:
    defaults: dict[str, Any] = {"method": "sparse", "experts": 2, "experts_per_token": 2}
    return CheckpointUpcycling(
        request=Request(**defaults | request),
        recipe=dataclasses.asdict(RECIPE),
        corpus=str(corpus.path),
        folder=str(folder),
        verified=str(folder / "verified"),
    )


def bits_per_byte(corpus: Corpus, domain: str, model: Path) -> float:
    windows = validation_windows(corpus.validation(domain), 512, 16, domain)
    ids = torch.from_numpy(windows)
    found = logits(model, ids[:, :-1]).flatten(0, 1)
    nats = F.cross_entropy(found, ids[:, 1:].flatten(), reduction="sum")
    return float(nats) / math.log(2) / float(corpus.token_bytes[windows[:, 1:]].sum())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmo2"])
def test_the_seed_and_the_mixture_have_what_transformers_computes(
    kind: str, text_corpus: Corpus, tmp_path: Path
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "seed", kind)
    law = branched(seed, tmp_path / "law")
    ask = asked(
        text_corpus, tmp_path / "p", method="branch-train-mix", seed=seed, sources={"law": law}
    )
    found = upcycle_checkpoint(ask, threads=1)
    model = tmp_path / "p" / "model"
    for domain in text_corpus.validation_domains:
        bits = bits_per_byte(text_corpus, domain, model)
        assert found["metrics"][f"bpb/{domain}"] == pytest.approx(bits, rel=1e-5)
        assert sum(found["loads"][domain]) == pytest.approx(1)
    bits = bits_per_byte(text_corpus, "law", seed)
    assert found["seed"]["bpb/law"] == pytest.approx(bits, rel=1e-5)
    receipt = Receipt.from_json(found["receipt"])
    assert receipt.experts == ("law", "seed")
    assert set(receipt.loads) == set(text_corpus.validation_domains)
    assert set(found["model"]) == {path.name for path in model.iterdir()}


def test_what_is_done_is_not_done_again(text_corpus: Corpus, tmp_path: Path) -> None:
    seed, folder = checkpoint(text_corpus, tmp_path / "seed"), tmp_path / "p"
    ask = asked(text_corpus, folder, seed=seed)
    first = upcycle_checkpoint(ask, threads=1)
    written = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    (folder / "upcycled" / "done.json").unlink()  # killed before the last marker
    again = upcycle_checkpoint(ask, threads=1)
    assert again == first
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == written
    (seed / "model.safetensors").unlink()  # with the last marker nobody reads it
    assert upcycle_checkpoint(ask, threads=1)["metrics"] == first["metrics"]


def test_a_damaged_folder_is_written_again(text_corpus: Corpus, tmp_path: Path) -> None:
    seed, folder = checkpoint(text_corpus, tmp_path / "seed"), tmp_path / "p"
    ask = asked(text_corpus, folder, seed=seed)
    first = upcycle_checkpoint(ask, threads=1)
    config = folder / "model" / "config.json"
    config.write_text("{}")
    again = upcycle_checkpoint(ask, threads=1)
    assert json.loads(config.read_text())["model_type"] == "mixtral"
    assert again["metrics"] == first["metrics"]


def test_routers_start_from_training_text_and_the_receipt_is_held_out(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "seed")
    sources = {name: branched(seed, tmp_path / name) for name in ("code", "law")}
    ask = asked(
        text_corpus,
        tmp_path / "p",
        method="branch-train-mix",
        router="ridge",
        seed=seed,
        sources=sources,
    )
    receipt = Receipt.from_json(upcycle_checkpoint(ask, threads=1)["receipt"])
    assert "notes" in receipt.loads  # a target has no training text
    assert receipt.router == "ridge"


def test_weights_that_are_not_finite_leave_nothing_half_written(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "seed")
    law = branched(seed, tmp_path / "law", noise=float("nan"))
    ask = asked(
        text_corpus, tmp_path / "p", method="branch-train-mix", seed=seed, sources={"law": law}
    )
    with pytest.raises(CheckpointError, match="values that are not finite"):
        upcycle_checkpoint(ask, threads=1)
    assert not (tmp_path / "p" / "model").exists()
    assert not (tmp_path / "p" / "upcycled" / "done.json").exists()
