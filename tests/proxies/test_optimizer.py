import dataclasses

import pytest
import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies import muon
from mixopt.proxies.optimizer import CohortOptimizer

CONFIG = ModelConfig(width=8, layers=1, heads=2, expert_width=8, vocab_size=16)
RECIPE = Recipe(gradient_clip=0.5, weight_decay=0.2)


def _gradients(model: Transformer, scale_K: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
        noise = torch.randn(parameter.shape[1:], generator=generator)
        for k, scale in enumerate(scale_K):
            parameter.grad[k] = noise * scale


@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_a_step_is_that_of_clipped_adamw_with_each_proxys_own_rate(as_on_a_gpu: bool) -> None:
    model = Transformer(CONFIG, (0, 1))
    rates = (1e-2, 3e-3)
    optimizer = CohortOptimizer(model, RECIPE, rates)
    optimizer.all_at_once = as_on_a_gpu
    peers = []
    for k, rate in enumerate(rates):
        alone = Transformer(CONFIG, (k,))
        decaying, plain = [], []
        for name, parameter in alone.named_parameters():
            is_matrix = parameter.dim() > 2 and name != "embedding"
            (decaying if is_matrix else plain).append(parameter)
        groups = [{"params": decaying, "weight_decay": 0.2}, {"params": plain, "weight_decay": 0.0}]
        betas = (RECIPE.beta1, RECIPE.beta2)
        peers.append((alone, torch.optim.AdamW(groups, lr=rate, betas=betas)))
    for _ in range(3):
        scales = (10.0, 1e-4)  # one is clipped, the other is not
        _gradients(model, scales)
        optimizer.step(1.0)
        for (alone, adam), scale in zip(peers, scales, strict=True):
            _gradients(alone, (scale,))
            torch.nn.utils.clip_grad_norm_(alone.parameters(), RECIPE.gradient_clip)
            adam.step()
    for k, (alone, _) in enumerate(peers):
        for (name, mine), theirs in zip(model.named_parameters(), alone.parameters(), strict=True):
            assert torch.allclose(mine[k], theirs[0], atol=1e-6), name


def test_a_rate_share_of_zero_moves_nothing() -> None:
    model = Transformer(CONFIG)
    before = model.proxy_state()
    optimizer = CohortOptimizer(model, RECIPE, (1e-2,))
    _gradients(model, (1.0,))
    optimizer.step(0.0)
    assert all(torch.equal(t, before[n]) for n, t in model.proxy_state().items())


def test_muon_steps_of_a_cohort_are_those_of_its_proxies_alone() -> None:
    recipe = dataclasses.replace(RECIPE, optimizer="muon")
    rates, scales = (1e-2, 3e-3), (10.0, 1e-4)
    together = Transformer(CONFIG, (0, 1))
    both = CohortOptimizer(together, recipe, rates)
    for _ in range(3):
        _gradients(together, scales)
        both.step(1.0)
    for k, (rate, scale) in enumerate(zip(rates, scales, strict=True)):
        alone = Transformer(CONFIG, (k,))
        own = CohortOptimizer(alone, recipe, (rate,))
        for _ in range(3):
            _gradients(alone, (scale,))
            own.step(1.0)
        for name, tensor in alone.proxy_state().items():
            assert torch.allclose(together.proxy_state(k)[name], tensor, atol=1e-5), name


def test_muon_moves_matrices_alone_and_leaves_the_rest_to_adamw() -> None:
    recipe = dataclasses.replace(RECIPE, optimizer="muon", weight_decay=0.0)
    moved = {}
    for name, asked in (("adamw", RECIPE), ("muon", recipe)):
        model = Transformer(CONFIG)
        optimizer = CohortOptimizer(model, dataclasses.replace(asked, weight_decay=0.0), (1e-2,))
        before = model.proxy_state()
        _gradients(model, (1.0,))
        optimizer.step(1.0)
        moved[name] = {n: t - before[n] for n, t in model.proxy_state().items()}
    matrices = {n for n, t in moved["muon"].items() if not torch.equal(t, moved["adamw"][n])}
    assert matrices == {
        "blocks.0.attention.qkv",
        "blocks.0.attention.out",
        "blocks.0.feed_forward.gate_up",
        "blocks.0.feed_forward.down",
    }
    # each of q, k, v is a matrix of its own: rate · 0.2 √8 · singular values of about 1
    for step_AB in moved["muon"]["blocks.0.attention.qkv"].chunk(3, -1):
        values = torch.linalg.svdvals(step_AB) / (1e-2 * 0.2 * 8**0.5)
        assert 0.4 < values.min() <= values.max() < 1.4


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (2, 5, 5)])
def test_orthogonalised_matrices_are_near_the_polar_factor(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    polar, found = u @ v, muon.orthogonal(x)
    assert (found - polar).norm() < 0.35 * polar.norm()
    assert not muon.orthogonal(torch.zeros(shape)).any()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_bit_for_bit(optimizer: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    model = Transformer(CONFIG)
    first = CohortOptimizer(model, recipe, (1e-2,))
    _gradients(model, (1.0,))
    first.step(1.0)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    other = Transformer(CONFIG)
    other.load_proxy_state(model.proxy_state())
    second = CohortOptimizer(other, recipe, (1e-2,))
    second.load_state(state)
    for one, its in ((model, first), (other, second)):
        _gradients(one, (0.3,))
        its.step(0.5)
    assert all(torch.equal(t, other.proxy_state()[n]) for n, t in model.proxy_state().items())


def test_a_gradient_that_is_not_finite_spoils_its_own_proxy_alone() -> None:
    for name in ("adamw", "muon"):
        model = Transformer(CONFIG, (0, 1))
        optimizer = CohortOptimizer(model, dataclasses.replace(RECIPE, optimizer=name), (1e-2,) * 2)
        _gradients(model, (float("nan"), 1.0))
        norm_K = optimizer.step(1.0)
        assert torch.isfinite(norm_K).tolist() == [False, True]
        assert all(torch.isfinite(tensor).all() for tensor in model.proxy_state(1).values())
