"""Fifty steps of a cohort against its proxies trained each in a run of its own."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.team import team
from mixopt.models.transformer import Transformer
from mixopt.proxies.optimizer import CohortOptimizer

CONFIG = ModelConfig(width=16, layers=2, heads=2, experts=4, expert_width=12, vocab_size=40)
STEPS = 50
RATES = (3e-3, 1e-3, 2e-3)


def _batches(seed: int) -> list[Tensor]:
    """A proxy's own data: (1, B, T + 1) of every step."""
    generator = torch.Generator().manual_seed(seed)
    strides = torch.randint(1, 4, (STEPS, 1, 4, 13), generator=generator)
    return list(strides.cumsum(-1) % 40)


def _train(
    recipe: Recipe, seeds: tuple[int, ...], rates: tuple[float, ...], threads: int
) -> tuple[Tensor, Transformer, dict[str, Tensor]]:
    """Losses of every step, (steps, K), the trained model, and its last gradients."""
    model = Transformer(CONFIG, seeds).train()
    optimizer = CohortOptimizer(model, recipe, rates)
    losses = []
    with team(threads):
        for ids_KBT in map(torch.cat, zip(*(_batches(seed) for seed in seeds), strict=True)):
            model.begin_step()
            optimizer.zero_gradients()
            for part_KBT in ids_KBT.chunk(recipe.micro_batches, 1):
                loss = model.loss(part_KBT[..., :-1], part_KBT[..., 1:])
                (loss.nats_K + loss.auxiliary_K).sum().backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
            optimizer.step(1.0)
            model.end_step()
            losses.append(loss.nats_K.detach())
    return torch.stack(losses), model, gradients


@pytest.mark.parametrize(
    ("optimizer", "threads", "micro_batches"),
    [
        ("adamw", 1, 1),
        ("muon", 2, 1),
        pytest.param("adamw", 2, 2, marks=pytest.mark.slow),
        pytest.param("muon", 1, 1, marks=pytest.mark.slow),
    ],
)
def test_losses_gradients_and_weights_are_those_of_separate_runs(
    optimizer: str, threads: int, micro_batches: int
) -> None:
    recipe = dataclasses.replace(
        Recipe(batch_sequences=4), optimizer=optimizer, micro_batches=micro_batches
    )
    seeds = (3, 4, 5)
    losses_SK, together, gradients = _train(recipe, seeds, RATES, threads)
    assert (losses_SK[-1] < losses_SK[0] - 0.3).all()
    for k, (seed, rate) in enumerate(zip(seeds, RATES, strict=True)):
        own_losses_S1, alone, own_gradients = _train(recipe, (seed,), (rate,), threads)
        assert torch.allclose(losses_SK[:, k], own_losses_S1[:, 0], atol=2e-5)
        state = together.proxy_state(k)
        for name, tensor in alone.proxy_state().items():
            assert torch.allclose(state[name], tensor, atol=2e-5), name
        for name, gradient in own_gradients.items():
            assert torch.allclose(gradients[name][k], gradient[0], atol=2e-5), name
