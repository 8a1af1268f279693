"""Mistral: Llama's tensors, and a sliding window of attention."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

MISTRAL = Family(
    name="mistral",
    model_type="mistral",
    architecture="MistralForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.NORMS_BEFORE,
        **_names.DENSE,
        **_names.END,
    },
    keys=_names.KEYS,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-6, "sliding_window": 4096},
    requires=_names.REQUIRES,
    windows=True,
    target="mixtral",
)
