"""Llama: dense, norms before each layer."""

from __future__ import annotations

from mixopt.models.families._names import ATTENTION, DENSE, END, KEYS, NORMS_BEFORE, START
from mixopt.models.families.base import Family

LLAMA = Family(
    name="llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    tensors={**START, **ATTENTION, **NORMS_BEFORE, **DENSE, **END},
    keys=KEYS,
    requires={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    target="mixtral",
)
