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
    keys={
        **_names.KEYS,  # no key says whether gates are divided by their sum: they always are
        "experts": "num_local_experts",
        "experts_per_token": "num_experts_per_tok",
    },
    constants={"norm_topk_prob": True, "output_router_logits": False},
    defaults={"num_key_value_heads": 8},
    requires={**_names.REQUIRES, "norm_topk_prob": True},
    windows=True,
    fused=_names.FUSED_EXPERTS,
    spellings={"layers.{layer}.router": "model.layers.{layer}.mlp.gate.weight"},
)
