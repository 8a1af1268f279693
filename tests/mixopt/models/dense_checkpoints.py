"""Dense checkpoints that tests make: small Llamas of random weights, with a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mixopt.models.families.base import family

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def write_dense(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Llama in one file, with a tokenizer of single letters."""
    folder.mkdir(parents=True)
    values = {**CONFIG, **config}
    (folder / "config.json").write_text(json.dumps(values))
    llama = family("llama")
    shape = llama.read_shape(values)
    random = torch.Generator().manual_seed(seed)
    tensors = {
        llama.disk_name(part): torch.randn(llama.size(part, shape), generator=random)
        for part in llama.parts(shape)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_tokenizer(folder, {chr(97 + number): number for number in range(26)})
    return folder


def write_tokenizer(folder: Path, vocabulary: dict[str, int], **layout: Any) -> None:
    """`tokenizer.json` of a BPE without merges."""
    values = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(values, **layout))


def split(folder: Path) -> Path:
    """The checkpoint in two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    files = {n: f"model-0000{1 + (n > names[len(names) // 2])}-of-00002.safetensors" for n in names}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / WEIGHTS).unlink()
    return folder


def edit(folder: Path, **changes: torch.Tensor | None) -> Path:
    """The checkpoint with these tensors in the place of its own; None leaves one out."""
    tensors = load_file(folder / WEIGHTS) | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / WEIGHTS)
    return folder
