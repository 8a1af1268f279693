"""A mixtral checkpoint as a model of ours again: the inverse of `export`.

Only what our transformer can compute comes back: as many key heads as query heads, of the width
divided by their number, and our epsilon in the norms. Attention over a window is ours without one.

Shapes: E experts, D width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mixopt.core.errors import CheckpointError
from mixopt.models.config import ModelConfig
from mixopt.models.families.base import split_part
from mixopt.models.families.checkpoint import Checkpoint
from mixopt.models.families.config import rotary
from mixopt.models.families.mixopt import state_of
from mixopt.models.families.mixtral import MIXTRAL
from mixopt.models.norm import NORM_EPSILON
from mixopt.models.transformer import EMBEDDING_SCALE, State


def returned_config(checkpoint: Checkpoint) -> ModelConfig:
    """The shape of a checkpoint as a model of ours.

    Raises:
        CheckpointError: our transformer computes something else.
    """
    shape, config = checkpoint.shape, checkpoint.config
    differing = {
        "model_type": checkpoint.family.name != MIXTRAL.name,
        "num_key_value_heads": shape.kv_heads != shape.heads,
        "head_dim": shape.head_width * shape.heads != shape.width,
        "rms_norm_eps": config.get("rms_norm_eps") != NORM_EPSILON,
        "sliding_window": config.get("sliding_window") is not None,
        "tie_word_embeddings": shape.tie_embeddings,
    }
    wrong = [key for key, differs in differing.items() if differs]
    if wrong:
        raise CheckpointError(
            f"mixopt's transformer does not compute a model with this {', '.join(wrong)}",
            where=str(checkpoint.folder),
        )
    return ModelConfig(
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        experts=shape.experts,
        experts_per_token=shape.experts_per_token,
        expert_width=shape.hidden,
        rope_theta=float(rotary(config)["rope_theta"]),
        tie_embeddings=False,
        vocab_size=shape.vocab_size,
    )


def returned_state(checkpoint: Checkpoint, config: ModelConfig) -> State:
    """The state of the model of `config`, fp32.

    Args:
        checkpoint: that `config` was made of.
        config: see `returned_config`.

    Raises:
        CheckpointError: a tensor cannot be read, or holds what is not finite.
    """
    state = state_of(_experts(checkpoint), config)
    rows: dict[str, list[Tensor]] = {}
    for part in checkpoint.parts:
        numbers, template = split_part(part)
        last = template.rpartition(".")[2]
        if "expert" in numbers:
            continue
        tensor = checkpoint[part].float()
        block = f"blocks.{numbers.get('layer')}"
        if part == "embedding":
            state[part] = tensor / EMBEDDING_SCALE
        elif last == "router":
            state[f"{block}.feed_forward.router.weight"] = tensor.T.contiguous()
        elif template.startswith("layers.{layer}.attention.") and last == "o":
            state[f"{block}.attention.out"] = tensor.T.contiguous()
        elif template.startswith("layers.{layer}.attention."):
            rows.setdefault(f"{block}.attention.qkv", []).append(tensor)  # in the order q, k, v
        else:
            state[part.replace("layers.", "blocks.", 1)] = tensor
    return state | {name: torch.cat(parts).T.contiguous() for name, parts in rows.items()}


def _experts(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the experts, by part name."""
    for part in checkpoint.parts:
        if "expert" in split_part(part)[0]:
            yield part, checkpoint[part]
