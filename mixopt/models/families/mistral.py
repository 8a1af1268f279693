"""Mistral: Llama's tensors, and a sliding window of attention."""

from __future__ import annotations

from mixopt.models.families._names import ATTENTION, DENSE, END, KEYS, NORMS_BEFORE, START
from mixopt.models.families.base import Family

MISTRAL = Family(
    name="mistral",
    model_type="mistral",
    architecture="MistralForCausalLM",
    tensors={**START, **ATTENTION, **NORMS_BEFORE, **DENSE, **END},
    keys=KEYS,
    requires={"hidden_act": "silu"},
    target="mixtral",
)
