"""Families of checkpoints: how each names, shapes and stacks what upcycling reads and writes.

A family is described, not implemented: one file each, with the names of its tensors and the keys of
its config. See `base`.
"""

from __future__ import annotations

from collections.abc import Mapping

# here and not in `base`: reading a study file checks a name without importing torch
FAMILIES: Mapping[str, str] = {
    "flex-olmo": "mixopt.models.families.flex_olmo:FLEX_OLMO",
    "llama": "mixopt.models.families.llama:LLAMA",
    "mistral": "mixopt.models.families.mistral:MISTRAL",
    "mixopt": "mixopt.models.families.mixopt:MIXOPT",
    "mixtral": "mixopt.models.families.mixtral:MIXTRAL",
    "olmo2": "mixopt.models.families.olmo2:OLMO2",
    "olmoe": "mixopt.models.families.olmoe:OLMOE",
    "qwen3": "mixopt.models.families.qwen3:QWEN3",
    "qwen3-moe": "mixopt.models.families.qwen3_moe:QWEN3_MOE",
}
