import torch

from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.recipe import Recipe
from proxies.optimizer import CohortOptimizer

CONFIG = ModelConfig(width=8, layers=1, heads=2, expert_width=8, vocab_size=16)
RECIPE = Recipe(gradient_clip=0.5, weight_decay=0.2)


def _gradients(model: Transformer, scale_K: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        assert parameter.grad is not None
        noise = torch.randn(parameter.shape[1:], generator=generator)
        for k, scale in enumerate(scale_K):
            parameter.grad[k] = noise * scale


def test_a_step_is_that_of_clipped_adamw_with_each_proxys_own_rate() -> None:
    model = Transformer(CONFIG, (0, 1))
    rates = (1e-2, 3e-3)
    optimizer = CohortOptimizer(model, RECIPE, rates)
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
            for parameter in alone.parameters():
                parameter.grad = torch.zeros_like(parameter)
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
