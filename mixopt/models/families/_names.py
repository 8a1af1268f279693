"""Names and config keys that most families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATTENTION: Mapping[str, str] = {
    f"layers.{{layer}}.attention.{each}": f"model.layers.{{layer}}.self_attn.{each}_proj.weight"
    for each in "qkvo"
}
QUERY_KEY_NORMS: Mapping[str, str] = {  # of all heads together
    f"layers.{{layer}}.attention.{each}_norm": (
        f"model.layers.{{layer}}.self_attn.{each}_norm.weight"
    )
    for each in "qk"
}
HEAD_NORMS: Mapping[str, str] = {  # of each head
    f"layers.{{layer}}.attention.{each}_head_norm": (
        f"model.layers.{{layer}}.self_attn.{each}_norm.weight"
    )
    for each in "qk"
}
NORMS_BEFORE: Mapping[str, str] = {
    "layers.{layer}.attention_norm": "model.layers.{layer}.input_layernorm.weight",
    "layers.{layer}.feed_forward_norm": "model.layers.{layer}.post_attention_layernorm.weight",
}
NORMS_AFTER: Mapping[str, str] = {
    "layers.{layer}.post_attention_norm": "model.layers.{layer}.post_attention_layernorm.weight",
    "layers.{layer}.post_feed_forward_norm": (
        "model.layers.{layer}.post_feedforward_layernorm.weight"
    ),
}
DENSE: Mapping[str, str] = {
    f"layers.{{layer}}.feed_forward.{each}": f"model.layers.{{layer}}.mlp.{each}_proj.weight"
    for each in ("gate", "up", "down")
}
EXPERTS: Mapping[str, str] = {
    "layers.{layer}.router": "model.layers.{layer}.mlp.gate.weight",
    **{
        f"layers.{{layer}}.experts.{{expert}}.{each}": (
            f"model.layers.{{layer}}.mlp.experts.{{expert}}.{each}_proj.weight"
        )
        for each in ("gate", "up", "down")
    },
}
FUSED_EXPERTS: Mapping[str, str] = {
    "gate_up": "model.layers.{layer}.mlp.experts.gate_up_proj",  # (E, 2F, D)
    "down": "model.layers.{layer}.mlp.experts.down_proj",  # (E, D, F)
}
START: Mapping[str, str] = {"embedding": "model.embed_tokens.weight"}
END: Mapping[str, str] = {"final_norm": "model.norm.weight", "head": "lm_head.weight"}

KEYS: Mapping[str, str] = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "hidden": "intermediate_size",
    "vocab_size": "vocab_size",
    "tie_embeddings": "tie_word_embeddings",
}
MOE_KEYS: Mapping[str, str] = {
    **KEYS,
    "experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "renormalize": "norm_topk_prob",
}

REQUIRES: Mapping[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
