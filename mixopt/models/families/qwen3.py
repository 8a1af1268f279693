"""Qwen3: dense, norms before each layer, and norms of every head's queries and keys."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.HEAD_NORMS,
        **_names.NORMS_BEFORE,
        **_names.DENSE,
        **_names.END,
    },
    keys=_names.KEYS,
    defaults={"head_dim": 128, "num_key_value_heads": 32},
    requires={**_names.REQUIRES, "use_sliding_window": False},
    target="qwen3-moe",
)
