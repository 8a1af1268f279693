"""OLMo 2: dense, norms after each layer, and norms of all queries and keys together."""

from __future__ import annotations

from mixopt.models.families import _names
from mixopt.models.families.base import Family

OLMO2 = Family(
    name="olmo2",
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.QUERY_KEY_NORMS,
        **_names.NORMS_AFTER,
        **_names.DENSE,
        **_names.END,
    },
    keys=_names.KEYS,
    defaults={
        "eos_token_id": 50279,
        "max_position_embeddings": 2048,
        "pad_token_id": 1,
        "rms_norm_eps": 1e-5,
    },
    requires=_names.REQUIRES,
    target="flex-olmo",
)
