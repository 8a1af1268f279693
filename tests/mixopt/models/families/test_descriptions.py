"""Every description says what transformers does: names, shapes, keys, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

from mixopt.core.errors import CheckpointError, StudyError
from mixopt.models.families import FAMILIES
from mixopt.models.families.base import Family, Shape, family
from mixopt.models.families.checkpoint import open_checkpoint
from mixopt.models.families.config import CARRIED, check_trunk, write_config
from mixopt.models.upcycling.folders import Request, plan
from tests.mixopt.models.families.made import MORE, SIZES, make

THEIRS = sorted(set(FAMILIES) - {"mixopt"})
DENSE = [name for name in THEIRS if not family(name).moe]
MOE = [name for name in THEIRS if family(name).moe]
FUSED = {"save_original_format": False}  # as transformers holds them in memory


def names_on_disk(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= set(file.keys())
    return found


def edit(folder: Path, **keys: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", THEIRS)
def test_names_shapes_and_config_are_those_of_transformers(
    name: str, tied: bool, tmp_path: Path
) -> None:
    theirs = family(name)
    folder = make(theirs.model_type, tmp_path, tie_word_embeddings=tied)
    checkpoint = open_checkpoint(folder)  # compares every shape
    assert {theirs.disk_name(part) for part in checkpoint.parts} == names_on_disk(folder)
    wide = name.startswith("qwen3")  # their heads may be wider than width / heads
    assert checkpoint.shape == Shape(
        width=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_width=16 if wide else 8,
        hidden=48,
        vocab_size=64,
        tie_embeddings=tied,
        experts=4 if theirs.moe else 1,
        experts_per_token=2 if theirs.moe else 1,
        renormalize=not theirs.moe or name == "mixtral",
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [theirs.architecture]


@pytest.mark.parametrize("name", MOE)
def test_a_config_that_we_write_is_read_back_by_us_and_by_transformers(
    name: str, tmp_path: Path
) -> None:
    theirs = family(name)
    shape = Shape(32, 2, 4, 2, 16, 48, 64, True, 4, 3, renormalize=True)
    seed = family(next(d for d in DENSE if family(d).target == name or name == "olmoe"))
    config = write_config(theirs, shape, seed.completed({"rope_theta": 5e4}), "bfloat16")
    assert theirs.read_shape(config) == shape
    for key in ("num_experts", "num_local_experts"):  # a reader may know one of them
        fewer = {other: value for other, value in config.items() if other != key}
        assert theirs.read_shape(fewer) == shape
    assert config["norm_topk_prob"] is True
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(read).__name__ == theirs.architecture.replace("ForCausalLM", "Config")
    assert read.rope_parameters["rope_theta"] == 5e4
    assert (read.num_experts, read.num_experts_per_tok, read.head_dim) == (4, 3, 16)


@pytest.mark.parametrize("name", DENSE)
def test_what_a_dense_config_leaves_out_is_what_transformers_takes(name: str) -> None:
    dense = family(name)
    target = family(dense.target)
    theirs = transformers.AutoConfig.for_model(dense.model_type)
    taken = transformers.AutoConfig.for_model(target.model_type)
    silent = dense.completed({})
    for key in CARRIED:
        if hasattr(theirs, key) and hasattr(taken, key):  # said, or the same by default
            assert silent.get(key, getattr(taken, key)) == getattr(theirs, key), key
    assert theirs.rope_parameters["rope_theta"] == 10_000  # what `rotary` takes


@pytest.mark.parametrize("name", THEIRS)
def test_heads_that_a_config_leaves_out_are_those_of_transformers(name: str) -> None:
    kind = family(name).model_type
    sizes = {k: v for k, v in (SIZES | MORE[kind]).items() if k != "num_key_value_heads"}
    sizes |= {"hidden_size": 2048, "num_attention_heads": 32}
    sizes.pop("head_dim", None)
    theirs = transformers.AutoConfig.for_model(kind, **sizes)
    shape = family(name).read_shape(family(name).completed(sizes))
    assert shape.kv_heads == theirs.num_key_value_heads
    assert shape.head_width == (getattr(theirs, "head_dim", None) or 2048 // 32)


@pytest.mark.parametrize("name", MOE)
def test_experts_that_are_stacked_are_read_as_the_same(name: str, tmp_path: Path) -> None:
    kind = family(name).model_type
    apart = open_checkpoint(make(kind, tmp_path / "apart"))
    stacked = open_checkpoint(make(kind, tmp_path / "stacked", saved=FUSED))
    assert any(n.endswith("experts.gate_up_proj") for n in stacked.files)
    assert stacked.parts == apart.parts
    assert all(torch.equal(stacked[part], apart[part]) for part in apart.parts)


def test_stacked_experts_of_another_number_are_refused(tmp_path: Path) -> None:
    folder = make("olmoe", tmp_path, saved=FUSED)
    edit(folder, num_experts=3, num_local_experts=3)
    # the router comes first, with as many rows
    with pytest.raises(CheckpointError, match=r"has shape \[4, 32\], and by its config \[3, 32\]"):
        open_checkpoint(folder)
    edit(folder, num_experts=4, num_local_experts=4, intermediate_size=24)
    with pytest.raises(CheckpointError, match=r"gate_up_proj has shape \[4, 96, 32\]"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias is True.*qwen2_moe"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True.*no format here"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is .*before they"),
        ("mistral", {"layer_types": ["sliding_attention"] * 2}, "layer_types is 'sliding_att"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True.*mixtral holds"),
        ("qwen3-moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
        ("qwen3-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        ("olmoe", {"clip_qkv": 8.0}, r"clip_qkv is 8\.0.*transformers' own olmoe"),
        ("mixtral", {"norm_topk_prob": False}, "norm_topk_prob is False"),
        ("llama", {"model_type": "gpt2"}, "model_type is 'gpt2'.*llama, "),
        ("llama", {"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_a_config_of_what_the_family_does_not_hold_is_refused(
    name: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = edit(make(family(name).model_type, tmp_path), **keys)
    with pytest.raises(StudyError, match=message) as refused:
        open_checkpoint(folder)
    assert refused.value.where == str(folder / "config.json")


@pytest.mark.parametrize(
    ("seed", "target", "message"),
    [
        ("llama", "qwen3-moe", "qwen3-moe needs what llama lacks: .*head_norm.*mixtral"),
        ("mistral", "olmoe", "olmoe needs what mistral lacks: .*_norm.*mixtral"),
        ("qwen3", "mixtral", "mixtral has no place for .*head_norm of qwen3.*qwen3-moe"),
        ("olmo2", "olmoe", "olmoe has no place for .*norm of olmo2.*flex-olmo"),
        ("llama", "mistral", "mistral has no experts.*mixtral"),
        ("mixtral", "mixtral", "a mixture of experts"),
    ],
)
def test_a_target_of_another_trunk_is_refused_with_the_one_that_holds_it(
    seed: str, target: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        check_trunk(family(seed), family(target))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rms_norm_eps": 1e-3}, "its rms_norm_eps is 0.001, and the seed's 1e-06"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "its rope_theta is 500000.0, and the seed's"),
        ({"sliding_window": 8}, "its sliding_window is 8, and the seed's None"),
    ],
)
def test_a_source_that_computes_otherwise_than_the_seed_is_refused(
    keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    seed, same, other = (make("mistral", tmp_path / name) for name in ("seed", "same", "other"))
    edit(other, **keys)
    sources = {"same": same, "other": other}
    with pytest.raises(StudyError, match=message) as refused:
        plan(Request("branch-train-mix", seed, sources, experts=2))
    assert refused.value.where == "sources.other"


def test_the_receipt_says_what_a_format_is_not_read_by(tmp_path: Path) -> None:
    seed = make("olmo2", tmp_path)
    assert "llama.cpp does not read flex-olmo" in plan(Request("sparse", seed)).receipt.notes


def test_every_dense_family_has_a_target_that_holds_its_trunk() -> None:
    for name in DENSE:
        dense: Family = family(name)
        check_trunk(dense, family(dense.target))
