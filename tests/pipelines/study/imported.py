"""Dense models for studies to import: of our own format, and small random checkpoints."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import save_state
from tests.mixopt.models.families.made import make
from tests.pipelines.whole_study import MODEL

DENSE = ModelConfig(**{**MODEL, "experts": 1, "experts_per_token": 1})


def own(corpus: Corpus, folder: Path, seed: int = 3, **shape: Any) -> Path:
    """A dense model of our own format, as a promotion's stage leaves it."""
    config = dataclasses.replace(DENSE, vocab_size=corpus.vocab_size, **shape)
    save_state(folder / "model.safetensors", Transformer(config, (seed,)).proxy_state())
    files.write_json(folder / "model.json", dataclasses.asdict(config))
    shutil.copyfile(corpus.tokenizer_path, folder / "tokenizer.json")
    return folder


def checkpoint(corpus: Corpus, folder: Path, kind: str = "llama", **config: Any) -> Path:
    """A random checkpoint with the tokenizer of the corpus, and rows that no token has."""
    make(kind, folder, **{"vocab_size": corpus.vocab_size + 8} | config)
    shutil.copyfile(corpus.tokenizer_path, folder / "tokenizer.json")
    return folder


def branched(seed: Path, folder: Path, noise: float = 0.05) -> Path:
    """A checkpoint that differs from `seed` as one that was trained further would."""
    model = transformers.AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    random = torch.Generator().manual_seed(len(folder.name))
    for parameter in model.parameters():
        parameter.data += noise * torch.randn(parameter.shape, generator=random)
    model.save_pretrained(folder)
    shutil.copyfile(seed / "tokenizer.json", folder / "tokenizer.json")
    return folder
