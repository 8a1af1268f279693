"""The arithmetic of a full run's memory is that of what torch holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.memory import full_run_memory
from mixopt.models.single import SingleTransformer

RECIPE = Recipe(sequence_length=64, batch_sequences=8, micro_batches=2)
SHAPES: list[dict[str, Any]] = [
    {"width": 64, "layers": 2, "heads": 4, "experts": 4, "experts_per_token": 2},
    {"width": 128, "layers": 3, "heads": 4, "experts": 8, "experts_per_token": 2},
    {"width": 96, "layers": 2, "heads": 4, "experts": 8, "experts_per_token": 4},
    {"width": 128, "layers": 2, "heads": 4, "experts": 1, "experts_per_token": 1},
]


def kept(model: SingleTransformer, sequences: int, length: int) -> int:
    """Bytes that torch keeps for the gradients of a micro-batch."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(model.config.vocab_size, (sequences, length + 1))
    model.train()
    model.begin_step()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model.loss(ids[:, :-1], ids[:, 1:])
    assert held[0].requires_grad
    return sum(found.values())


@pytest.mark.parametrize("hidden", [64, 384])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_activations_are_within_a_third_of_what_torch_keeps(
    shape: dict[str, Any], precision: str, hidden: int
) -> None:
    config = ModelConfig(**shape, expert_width=hidden, vocab_size=256)
    recipe = Recipe(**{**vars_of(RECIPE), "precision": precision})
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    measured = kept(SingleTransformer(config, compute_dtype=dtype), 4, 64)
    assert full_run_memory(config, recipe).activations == pytest.approx(measured, rel=1 / 3)


def vars_of(recipe: Recipe) -> dict[str, Any]:
    names = ("sequence_length", "batch_sequences", "micro_batches")
    return {name: getattr(recipe, name) for name in names}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_activations_are_one_layers_and_the_blocks_inputs(precision: str) -> None:
    config = ModelConfig(width=128, layers=6, heads=4, expert_width=256, vocab_size=256)
    recipe = Recipe(**{**vars_of(RECIPE), "precision": precision})
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    inputs = kept(SingleTransformer(config, compute_dtype=dtype, recompute=True), 4, 64)
    whole = full_run_memory(config, recipe).activations
    found = full_run_memory(config, recipe, recompute=True).activations
    assert inputs < found < inputs + whole / 4


def test_states_are_sixteen_bytes_of_every_parameter_shared_by_the_processes() -> None:
    config = ModelConfig(vocab_size=512)
    params = sum(p.numel() for p in SingleTransformer(config).parameters())
    one, three = (full_run_memory(config, RECIPE, n) for n in (1, 3))
    assert one.states == 16 * params
    assert three.states == pytest.approx(one.states / 3)
    assert (one.built, one.checkpoint, one.gathered) == (4 * params, 12 * params, 0)
    assert three.gathered > 0
    deep = ModelConfig(width=256, layers=64, vocab_size=512)
    whole, shared = (full_run_memory(deep, RECIPE, n) for n in (1, 64))
    assert shared.needed < whole.built / 10  # no process needs room for the whole model
    untied = ModelConfig(vocab_size=512, tie_embeddings=False)
    count = sum(p.numel() for p in SingleTransformer(untied).parameters())
    assert full_run_memory(untied, RECIPE).states == 16 * count
