"""A mixture of experts of ours as `mixtral`: its tensors, its config, and what has no home there.

Our embedding has a factor that other formats lack: it is multiplied by it, and a tied head is
untied. What transformers computes from it agrees in fp32 to 1e-5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.families.base import Shape, split_part
from mixopt.models.families.config import write_config
from mixopt.models.families.mixopt import StateWeights, shape_of
from mixopt.models.families.mixtral import MIXTRAL
from mixopt.models.norm import NORM_EPSILON
from mixopt.models.routers import DEFAULT
from mixopt.models.transformer import EMBEDDING_SCALE, State

OWN_FORMAT = "or keep the model in mixopt's own format"
HOMES: Mapping[str, tuple[str, str]] = {  # router → what has no home, and the nearest format
    "deepseek": ("gates that do not sum to 1", "transformers' qwen2_moe has such gates"),
    "hmoe": ("experts of unequal width", "no format of transformers has them"),
    "loss-free": ("a selection bias", "transformers' glm4_moe has one"),
    "switch": ("gates that do not sum to 1", "transformers' qwen2_moe has such gates"),
}


def check_exportable(config: ModelConfig) -> None:
    """Refuse a model of ours that would compute something else in the format.

    Raises:
        StudyError: naming the setting, and the nearest format that would hold it.
    """
    if config.dense:
        raise StudyError(
            "a dense model is no mixture of experts",
            where="experts",
            hint="The nearest format is llama, which mixopt reads and does not write",
        )
    if config.router != DEFAULT:
        what, nearest = HOMES.get(
            config.router, (f"the router {config.router!r}", "no format of transformers has it")
        )
        raise _no_home(what, "router", f"Promote with the router {DEFAULT}; {nearest}")
    if not config.settings.unit_gates(config):
        raise _no_home(
            "gates that do not sum to 1",
            "renormalize" if config.experts_per_token > 1 else "experts_per_token",
            "Promote with renormalize: true and at least 2 experts per token; "
            "transformers' qwen2_moe has such gates",
        )
    if config.shared_experts:
        raise _no_home(
            f"{config.shared_experts} shared experts",
            "shared_experts",
            "Promote without shared experts; transformers' granitemoeshared has them",
        )


def exported_shape(config: ModelConfig) -> Shape:
    """The shape of the model that leaves: its head is untied."""
    return dataclasses.replace(shape_of(config), tie_embeddings=False)


def exported_config(
    config: ModelConfig, positions: int, end_of_text: int, dtype: str = "float32"
) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        config: of the model.
        positions: length of the sequences that it was trained on, in tokens.
        end_of_text: id of the token that closes a document. Nothing stands before a document in
            training, so that it also stands for the beginning.
        dtype: of the tensors.
    """
    says = {
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "pad_token_id": None,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
    }
    written = write_config(MIXTRAL, exported_shape(config), says, dtype)
    coefficient = {"router_aux_loss_coef": config.balance_coefficient}
    return {**written, **coefficient}


def exported_tensors(state: State, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a mixture of experts of ours by part name, fp32, in the family's order.

    Args:
        state: of one model.
        config: its shape; see `check_exportable`.
    """
    weights, width = StateWeights(state, config), config.width
    for part in MIXTRAL.parts(exported_shape(config)):
        numbers, template = split_part(part)
        last = template.rpartition(".")[2]
        if part == "embedding":
            yield part, state[part] * EMBEDDING_SCALE
        elif part == "head":
            yield part, state["embedding" if config.tie_embeddings else part]
        elif template.startswith("layers.{layer}.attention."):
            block = f"blocks.{numbers['layer']}.attention"
            if last == "o":
                yield part, state[f"{block}.out"].T
            else:
                at = "qkv".index(last) * width
                yield part, state[f"{block}.qkv"][:, at : at + width].T
        else:
            yield part, weights[part]


def _no_home(what: str, where: str, hint: str) -> StudyError:
    return StudyError(f"mixtral has no home for {what}", where=where, hint=f"{hint}, {OWN_FORMAT}")
