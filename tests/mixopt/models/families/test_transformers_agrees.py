"""What transformers computes from our folders is what it computes from the dense seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mixopt.models.families.checkpoint import open_checkpoint
from mixopt.models.upcycling.folders import Request, plan, write
from tests.mixopt.models.families.made import logits, make, some_ids

STRETCHED = {
    "rope_theta": 5e5,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
SEEDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True, "head_dim": 16},
    "llama, stretched": {"rope_parameters": STRETCHED},
    "mistral": {},
    "mistral, window": {"sliding_window": 4},
    "qwen3": {},
    "qwen3, tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
    "olmo2": {},
}


def upcycled(seed: Path, out: Path) -> Path:
    assert write(plan(Request("sparse", seed, experts=4)), out).preserves_function
    return out


def edited(folder: Path, **keys: Any) -> Path:
    """The same folder with keys of its config changed; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def gap(one: Path, other: Path) -> float:
    ids = some_ids()
    return float((logits(one, ids) - logits(other, ids)).abs().max())


@pytest.mark.parametrize("kind", SEEDS)
def test_a_sparse_copy_computes_what_its_seed_does(kind: str, tmp_path: Path) -> None:
    seed = make(kind.partition(",")[0], tmp_path / "seed", **SEEDS[kind])
    assert gap(upcycled(seed, tmp_path / "moe"), seed) < 1e-5


def test_a_window_of_attention_is_kept(tmp_path: Path) -> None:
    wide = make("mistral", tmp_path / "wide")
    narrow = make("mistral", tmp_path / "narrow", sliding_window=4)
    assert gap(wide, narrow) > 1e-3  # else the test above could not see it


@pytest.mark.parametrize("parameters", [{"rope_theta": 100.0, "rope_type": "default"}, STRETCHED])
def test_rotary_positions_are_read_and_written_in_both_spellings(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    new = make("llama", tmp_path / "new", rope_parameters=parameters)
    old = make("llama", tmp_path / "old", rope_parameters=parameters)
    rest = {key: value for key, value in parameters.items() if key != "rope_theta"}
    scaling = None if rest == {"rope_type": "default"} else {**rest, "type": rest["rope_type"]}
    edited(old, rope_parameters=None, rope_theta=parameters["rope_theta"], rope_scaling=scaling)
    copies = [upcycled(seed, seed.with_suffix(".moe")) for seed in (new, old)]
    configs = [json.loads((copy / "config.json").read_text()) for copy in copies]
    for config, copy in zip(configs, copies, strict=True):
        assert config["rope_parameters"] == parameters
        assert config["rope_theta"] == parameters["rope_theta"]
        assert config["rope_scaling"] == (None if scaling is None else rest)
        assert gap(copy, new) < 1e-5
        only_old = edited(copy, rope_parameters=None)  # what an older reader sees
        assert gap(only_old, new) < 1e-5


def test_what_a_config_leaves_out_means_the_same_in_the_copy(tmp_path: Path) -> None:
    # Llama's norms add 1e-6 where nothing is said, Mixtral's 1e-5
    seed = edited(make("llama", tmp_path / "seed"), rms_norm_eps=None)
    with_tiny_states(seed)
    assert gap(upcycled(seed, tmp_path / "moe"), seed) < 1e-5


def with_tiny_states(folder: Path) -> None:
    """Make the embedding so small that a norm's epsilon counts."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"] *= 0.02
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_window_that_llama_does_not_heed_is_not_given_to_mixtral(tmp_path: Path) -> None:
    seed = edited(make("llama", tmp_path / "seed"), sliding_window=4)
    assert gap(upcycled(seed, tmp_path / "moe"), seed) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_tied_head_is_written_for_readers_that_tie_none(kind: str, tmp_path: Path) -> None:
    seed = make(kind, tmp_path / "seed", tie_word_embeddings=True)
    made = plan(Request("sparse", seed, experts=4))
    write(made, tmp_path / "moe")
    tensors = load_file(tmp_path / "moe" / "model.safetensors")
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "moe", output_loading_info=True
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(report.values())
    assert made.params == sum(parameter.numel() for parameter in model.parameters())
    assert open_checkpoint(tmp_path / "moe").parts == tuple(
        part for part in made.family.parts(made.shape) if part != "head"
    )


def test_shards_are_read_and_written(tmp_path: Path) -> None:
    whole = make("llama", tmp_path / "whole")
    cut = make("llama", tmp_path / "cut", saved={"max_shard_size": "20KB"})
    assert len(list(cut.glob("*.safetensors"))) > 2
    assert (cut / "model.safetensors.index.json").is_file()
    assert gap(upcycled(cut, tmp_path / "moe"), whole) < 1e-5
    assert torch.equal(
        logits(upcycled(whole, tmp_path / "other"), some_ids()),
        logits(tmp_path / "moe", some_ids()),
    )
