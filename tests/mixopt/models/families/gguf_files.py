"""GGUF files that tests make, as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

WIDTH, HEADS, KV_HEADS, LAYERS, HIDDEN, VOCAB = 64, 4, 2, 2, 96, 40


def head_pairs(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k as llama.cpp's converter of Llama orders them."""
    return (
        weights.reshape(heads, 2, len(weights) // heads // 2, weights.shape[1])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def model(kind: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=WIDTH // HEADS,
        num_hidden_layers=LAYERS,
        intermediate_size=HIDDEN,
        vocab_size=VOCAB,
        max_position_embeddings=128,
        tie_word_embeddings=kind == "Qwen3",
    )
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def write(path: Path, kind: str = "Llama", store: Any = np.float32, **fields: Any) -> Any:
    """A GGUF file as llama.cpp's converter writes it; the model that is in it."""
    made, name = model(kind), kind.lower()
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(VOCAB)
    writer.add_name("made")
    for key, value in fields.items():
        writer.add_string(f"{name}.{key.replace('__', '.')}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*map(chr, range(97, 97 + VOCAB - 2)), "ab", "<end>"])
    writer.add_token_types([1] * (VOCAB - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(VOCAB - 1)
    writer.add_eos_token_id(VOCAB - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], LAYERS)
    for key, tensor in made.state_dict().items():
        if key == "lm_head.weight" and made.config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if kind == "Llama" and ("q_proj" in key or "k_proj" in key):
            values = head_pairs(values, HEADS if "q_proj" in key else KV_HEADS)
        stored = f"{names.get_name(key.removesuffix('.weight'))}.weight"
        if isinstance(store, str) and values.ndim == 2:
            kept = gguf.GGMLQuantizationType[store]
            writer.add_tensor(stored, gguf.quantize(values, kept), raw_dtype=kept)
        else:
            writer.add_tensor(stored, values.astype(np.float32 if values.ndim == 1 else store))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made
