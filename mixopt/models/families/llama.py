"""Llama: dense, norms before each layer."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

LLAMA = Family(
    name="llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.NORMS_BEFORE,
        **_names.DENSE,
        **_names.END,
    },
    keys=_names.KEYS,
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    requires=_names.REQUIRES,
    target="mixtral",
)
