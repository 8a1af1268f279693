"""Small random models of every family, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
MORE: dict[str, dict[str, Any]] = {  # by `model_type`
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen3": {"head_dim": 16},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**EXPERTS, "moe_intermediate_size": 48, "head_dim": 16},
    "olmoe": EXPERTS,
    "flex_olmo": EXPERTS,
}


def make(model_type: str, folder: Path, saved: dict[str, Any] | None = None, **more: Any) -> Path:
    """A model in `folder`, its config changed by `more`; `saved` are options of the saving."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **SIZES | MORE[model_type] | more)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # norms that are all ones hide a norm that is lost
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder, **saved or {})
    return folder


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What transformers computes from the model in `folder`, fp32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def some_ids(sequences: int = 2, length: int = 24, vocabulary: int = 64) -> torch.Tensor:
    """Token ids, (sequences, length)."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, vocabulary, (sequences, length), generator=random)
