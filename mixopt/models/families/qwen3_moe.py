"""Qwen3-MoE: Qwen3's trunk, which always norms queries and keys; gates that sum to 1 or not."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

QWEN3_MOE = Family(
    name="qwen3-moe",
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.HEAD_NORMS,
        **_names.NORMS_BEFORE,
        **_names.EXPERTS,
        **_names.END,
    },
    keys={**_names.MOE_KEYS, "hidden": "moe_intermediate_size"},
    constants={"decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": False},
    defaults={"num_key_value_heads": 4},
    requires={
        **_names.REQUIRES,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    },
    fused=_names.FUSED_EXPERTS,
)
