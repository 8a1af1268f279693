"""Mixtral: Llama's or Mistral's trunk, gates that sum to 1."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

_BLOCK = "model.layers.{layer}.block_sparse_moe"

MIXTRAL = Family(
    name="mixtral",
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.NORMS_BEFORE,
        "layers.{layer}.router": f"{_BLOCK}.gate.weight",
        "layers.{layer}.experts.{expert}.gate": f"{_BLOCK}.experts.{{expert}}.w1.weight",
        "layers.{layer}.experts.{expert}.up": f"{_BLOCK}.experts.{{expert}}.w3.weight",
        "layers.{layer}.experts.{expert}.down": f"{_BLOCK}.experts.{{expert}}.w2.weight",
        **_names.END,
    },
    keys={**_names.MOE_KEYS, "experts": "num_local_experts"},
    constants={"norm_topk_prob": True, "output_router_logits": False},
    requires={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    fused=_names.FUSED_EXPERTS,
)
