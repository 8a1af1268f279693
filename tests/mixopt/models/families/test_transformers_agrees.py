"""What transformers computes from our folders is what it computes from the dense seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from mixopt.models.upcycling.folders import Request, plan, write

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
SEEDS = {
    "llama": ("LlamaConfig", {}),
    "llama, tied": ("LlamaConfig", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama, stretched": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_theta": 5e5,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": 4}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "olmo2": ("Olmo2Config", {}),
}


def dense(kind: str, folder: Path) -> Path:
    name, more = SEEDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**SIZES, **more)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # norms that are all ones hide a norm that is lost
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


@pytest.mark.parametrize("kind", SEEDS)
def test_a_sparse_copy_computes_what_its_seed_does(kind: str, tmp_path: Path) -> None:
    seed = dense(kind, tmp_path / "seed")
    receipt = write(plan(Request("sparse", seed, experts=4)), tmp_path / "moe")
    ids = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1))
    gap = (logits(tmp_path / "moe", ids) - logits(seed, ids)).abs().max()
    assert receipt.preserves_function
    assert gap < 1e-5
