"""FlexOlmo: OLMo 2's trunk, which norms after each layer."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

FLEX_OLMO = Family(
    name="flex-olmo",
    model_type="flex_olmo",
    architecture="FlexOlmoForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.QUERY_KEY_NORMS,
        **_names.NORMS_AFTER,
        **_names.EXPERTS,
        **_names.END,
    },
    keys=_names.MOE_KEYS,
    constants={"output_router_logits": False},
    requires=_names.REQUIRES,
    fused=_names.FUSED_EXPERTS,
    warning="llama.cpp does not read flex-olmo",
)
