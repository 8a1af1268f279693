"""The config of an upcycled checkpoint: the seed's, with what the target family calls differently.

Readers of one format differ in their spellings (`num_experts` or `num_local_experts`,
`rope_parameters` or `rope_theta`, `dtype` or `torch_dtype`): both are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.models.families.base import SPELLINGS, Family, Shape

CARRIED = (  # keys that mean the same in every family
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "initializer_range",
    "max_position_embeddings",
    "pad_token_id",
    "rms_norm_eps",
    "sliding_window",
    "use_cache",
    "use_sliding_window",
)
REWRITTEN = (  # keys that are written anew, or that say nothing about what the model computes
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "dtype",
    "layer_types",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "pretraining_tp",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformers_version",
)


HOMES = {  # what a family of ours has no home for → what would hold it
    "attention_bias": "the nearest format is transformers' qwen2_moe, which mixopt does not write",
    "clip_qkv": "transformers' own olmoe holds it",
    "hidden_act": "no format here has experts of another activation",
    "layer_types": "mixtral holds one window for all layers",
    "mlp_bias": "no format here has experts with biases",
    "partial_rotary_factor": "no format here turns a part of a head's channels",
    "quantization_config": "give the weights from before they were quantized",
    "sliding_window": "mixtral holds it",
    "use_sliding_window": "mixtral holds a window, but no norms of queries and keys",
}


def check_held(family: Family, config: Mapping[str, Any], where: str) -> None:
    """Refuse a config of what `family`, as mixopt reads and writes it, does not hold.

    Args:
        family: that should hold it.
        config: content of `config.json`.
        where: that file.

    Raises:
        StudyError: naming the key, and the nearest format that would hold it.
    """
    for key, value in family.requires.items():
        if config.get(key, value) not in (value, None):
            raise _without_home(family, key, config[key], where)
    others = set(config.get("layer_types") or ()) - {"full_attention"}
    if others:
        raise _without_home(family, "layer_types", min(others), where)


def check_config(seed: Family, config: Mapping[str, Any], target: Family, where: str) -> None:
    """Refuse a seed whose config asks for what `target` cannot hold.

    Args:
        seed: its family.
        config: its config, completed (`Family.completed`).
        target: family of the output.
        where: the config's file.

    Raises:
        StudyError: naming the key, and the nearest format that would hold it.
    """
    check_held(target, config, where)
    window = config.get("sliding_window")
    if seed.windows and window is not None and not target.windows:
        raise _without_home(target, "sliding_window", window, where)


def _without_home(family: Family, key: str, value: object, where: str) -> StudyError:
    home = f"; {HOMES[key]}" if key in HOMES else ""
    return StudyError(
        f"{key} is {value!r}, which {family.name} as mixopt knows it does not hold",
        where=where,
        hint=f"Choose a checkpoint without it{home}",
    )


def check_branched(config: Mapping[str, Any], seed: Mapping[str, Any], name: str) -> None:
    """Refuse a source that computes otherwise than the seed, whose config the mixture gets.

    Args:
        config: of the source, completed (`Family.completed`).
        seed: of the seed, completed.
        name: of the source.

    Raises:
        StudyError: naming the key and both values.
    """
    mine, seeds = ({**it, **rotary(it)} for it in (config, seed))
    for key in ("rms_norm_eps", "rope_theta", "rope_scaling", "sliding_window"):
        if mine.get(key) != seeds.get(key):
            raise StudyError(
                f"its {key} is {mine.get(key)!r}, and the seed's {seeds.get(key)!r}",
                where=f"sources.{name}",
                hint="Give experts that were branched from this seed and trained as it was",
            )


def check_trunk(seed: Family, target: Family) -> None:
    """Refuse a target whose attention and norms are not those of the seed.

    Raises:
        StudyError: naming what the seed has and the target lacks, or the other way round.
    """
    if seed.moe:
        raise StudyError(
            f"the seed is a mixture of experts ({seed.name})",
            where="seed",
            hint="Give a dense checkpoint",
        )
    if not target.moe:
        raise StudyError(f"{target.name} has no experts", where="target", hint=_other(seed))
    more, fewer = sorted(seed.trunk - target.trunk), sorted(target.trunk - seed.trunk)
    if more or fewer:
        what = f"no place for {more[0]} of {seed.name}" if more else f"{fewer[0]}"
        verb = "has" if more else f"needs what {seed.name} lacks:"
        raise StudyError(
            f"{target.name} {verb} {what}".replace(".{layer}", ""),
            where="target",
            hint=_other(seed),
        )


def _other(seed: Family) -> str:
    return f"Choose the target {seed.target}, which holds all of {seed.name}"


def write_config(
    target: Family, shape: Shape, seed_config: Mapping[str, Any], dtype: str
) -> dict[str, Any]:
    """The content of `config.json` of a model of `shape`.

    Args:
        target: its family.
        shape: of the upcycled model.
        seed_config: of the seed.
        dtype: of the tensors, such as `bfloat16`.
    """
    config: dict[str, Any] = {"architectures": [target.architecture]}
    config["model_type"] = target.model_type
    config |= {key: seed_config[key] for key in CARRIED if key in seed_config}
    values = dataclasses.asdict(shape)
    for name, key in target.keys.items():
        config[key] = values[name]
        if key in SPELLINGS:
            config[SPELLINGS[key]] = values[name]
    # a dense width is asked for by some readers although no layer is dense
    config.setdefault("intermediate_size", shape.hidden)
    config |= target.constants
    config.setdefault("norm_topk_prob", shape.renormalize)
    config |= rotary(seed_config)
    config["dtype"] = config["torch_dtype"] = dtype
    return config


def rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions of a config, in both spellings."""
    parameters = dict(config.get("rope_parameters") or {})
    parameters |= dict(config.get("rope_scaling") or {})
    theta = float(parameters.pop("rope_theta", config.get("rope_theta") or 10_000.0))
    kind = parameters.pop("rope_type", parameters.pop("type", "default"))
    parameters.pop("type", None)
    scaling = None if kind == "default" else {"rope_type": kind, **parameters}
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": theta, "rope_type": kind, **parameters},
    }


def not_carried(target: Family, config: Mapping[str, Any]) -> list[str]:
    """Keys of a seed's config that the target's says nothing of."""
    known = {*CARRIED, *REWRITTEN, *target.keys.values(), *SPELLINGS, "head_dim"}
    known |= {*target.constants, *target.requires, "intermediate_size"}
    return sorted(key for key, value in config.items() if key not in known and value is not None)
