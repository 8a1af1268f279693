"""OLMoE: norms before each layer, and norms of all queries and keys together.

No dense family here has that trunk, so that nothing is upcycled into it; it is read.
"""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

OLMOE = Family(
    name="olmoe",
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.QUERY_KEY_NORMS,
        **_names.NORMS_BEFORE,
        **_names.EXPERTS,
        **_names.END,
    },
    keys=_names.MOE_KEYS,
    constants={"output_router_logits": False},
    requires={**_names.REQUIRES, "clip_qkv": None},
    fused=_names.FUSED_EXPERTS,
)
