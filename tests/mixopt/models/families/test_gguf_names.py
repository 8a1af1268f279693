"""llama.cpp's converter knows every name that we write: the `gguf` package maps it.

The converter stacks experts, and looks a stacked tensor up by its name without the expert's number.
"""

from __future__ import annotations

import gguf
import pytest

from mixopt.models.families import FAMILIES
from mixopt.models.families.base import Family, Shape, family, split_part

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "qwen3-moe": gguf.MODEL_ARCH.QWEN3MOE,
}
NAMES = {  # part name → name in a GGUF file
    "embedding": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.o": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.q_head_norm": "attn_q_norm",
    "attention.k_head_norm": "attn_k_norm",
    "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm",
    "post_attention_norm": "post_attention_norm",
    "post_feed_forward_norm": "post_ffw_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
    "router": "ffn_gate_inp",
    "experts.{expert}.gate": "ffn_gate_exps",
    "experts.{expert}.up": "ffn_up_exps",
    "experts.{expert}.down": "ffn_down_exps",
}


def shape(of: Family) -> Shape:
    return Shape(8, 2, 2, 2, 4, 12, 16, False, 3 if of.moe else 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tensor_has_its_place_in_a_gguf_file(name: str) -> None:
    ours = family(name)
    known = gguf.get_tensor_name_map(ARCHITECTURES[name], 2)
    for part in ours.parts(shape(ours)):
        numbers, template = split_part(part)
        on_disk = ours.disk_name(part).replace(f".experts.{numbers.get('expert')}.", ".experts.")
        wanted = NAMES[template.removeprefix("layers.{layer}.")]
        if "layer" in numbers:
            wanted = f"blk.{numbers['layer']}.{wanted}"
        assert known.get_name(on_disk, try_suffixes=(".weight",)) == f"{wanted}.weight", part


def test_what_llama_cpp_does_not_read_says_so() -> None:
    assert not [a for a in gguf.MODEL_ARCH if "flex" in a.name.lower()]  # else: add it above
    without = {name for name in FAMILIES if "llama.cpp" in family(name).warning}
    assert without == set(FAMILIES) - set(ARCHITECTURES) - {"mixopt"}
