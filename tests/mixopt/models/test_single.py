"""The model without the axis K against `Transformer` of K = 1, for every router."""

import dataclasses
from typing import Any

import pytest
import torch

from mixopt.core.errors import TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.single import SingleTransformer
from mixopt.models.transformer import Transformer

CONFIG = ModelConfig(width=16, layers=3, heads=2, experts=4, expert_width=12, vocab_size=40)
SETTINGS: dict[str, dict[str, Any]] = {
    "expert-choice": {"ablation": True},
    "remoe": {"coefficient": 1e-2},
    "stable": {"stage": 0.5},
    "loss-free": {"sequence_coefficient": 0.1},
}
SHAPES = {
    "dense": dataclasses.replace(CONFIG, experts=1, experts_per_token=1),
    "untied, with shared experts": dataclasses.replace(
        CONFIG, tie_embeddings=False, shared_experts=1
    ),
    **{
        name: dataclasses.replace(CONFIG, router=name, router_settings=SETTINGS.get(name, {}))
        for name in ROUTERS
    },
}
STEPS, PARTS = 3, 2


def _ids(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(40, (4, 13), generator=generator)


def _three_steps(model: Any, single: bool) -> list[tuple[torch.Tensor, ...]]:
    """Losses and gradients of a few plain steps with two micro-batches each."""
    found = []
    for step in range(STEPS):
        model.begin_step(step / STEPS)
        for parameter in model.parameters():
            parameter.grad = None
        losses = []
        for ids in _ids(step).chunk(PARTS):
            if single:
                nats_K, auxiliary_K, _ = model.loss(ids[:, :-1], ids[:, 1:])
            else:
                both = model.loss(ids[None, :, :-1], ids[None, :, 1:])
                nats_K, auxiliary_K = both.nats_K, both.auxiliary_K
            (nats_K + auxiliary_K).sum().backward()
            losses += [nats_K.detach(), auxiliary_K.detach()]
        weights = dict(model.named_weights() if single else model.named_parameters())
        with torch.no_grad():
            for weight in weights.values():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
        model.end_step()
        gradients = [
            torch.zeros(1) if w.grad is None else w.grad.flatten() for w in weights.values()
        ]
        found.append((*losses, torch.cat(gradients)))
    return found


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recompute", [False, True])
def test_losses_gradients_and_steps_are_those_of_one_proxy_bit_for_bit(
    shape: str, precision: torch.dtype, recompute: bool
) -> None:
    proxy = Transformer(SHAPES[shape], (5,), precision)
    single = SingleTransformer(SHAPES[shape], 5, precision, recompute=recompute)
    for mine, theirs in zip(_three_steps(single, True), _three_steps(proxy, False), strict=True):
        assert all(map(torch.equal, mine, theirs))
    state = proxy.proxy_state()
    assert list(single.proxy_state()) == list(state)
    assert all(torch.equal(tensor, state[n]) for n, tensor in single.proxy_state().items())
    ids_KBT = _ids(9)[None]
    nats_KN, routings = single.eval().nats(ids_KBT[..., :-1], ids_KBT[..., 1:])
    expected_KN, others = proxy.eval().nats(ids_KBT[..., :-1], ids_KBT[..., 1:])
    assert torch.equal(nats_KN, expected_KN)
    for routing, other in zip(routings, others, strict=True):
        assert torch.equal(routing.indices_KNS, other.indices_KNS)


@pytest.mark.parametrize("router", ["softmax", "stable", "loss-free"])
def test_a_state_is_read_and_written_as_a_proxys(router: str) -> None:
    proxy = Transformer(SHAPES[router], (1,))
    _three_steps(proxy, False)
    single = SingleTransformer(SHAPES[router], 2)
    single.load_proxy_state(proxy.proxy_state())
    again = Transformer(SHAPES[router], (3,))
    again.load_proxy_state(single.proxy_state())
    for name, tensor in proxy.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_state_of_another_shape_is_refused() -> None:
    single = SingleTransformer(CONFIG)
    other = Transformer(dataclasses.replace(CONFIG, width=8)).proxy_state()
    with pytest.raises(TrainingError, match="does not fit this model"):
        single.load_proxy_state(other)


def test_every_parameter_lies_flat_and_once() -> None:
    single = SingleTransformer(CONFIG)
    assert all(parameter.dim() <= 2 for parameter in single.parameters())
    counted = sum(parameter.numel() for parameter in single.parameters())
    assert counted == sum(p.numel() for p in Transformer(CONFIG).parameters())
    of_parts = {id(p) for part in single.parts for p in part.parameters()}
    assert of_parts
    assert len({id(p) for _, p in single.named_weights()}) == len(list(single.parameters()))
