"""What a GPU computes, against what a CPU does: the same formulas, whole instead of in pieces."""

import pytest
import torch
from torch import Tensor

from mixopt.models import attention, grouped, losses, norm
from mixopt.models.attention import rotary_tables
from mixopt.models.experts import plan, run_experts

K, N, D, E, F = 2, 24, 16, 3, 8


def _gradients(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(9))
    return list(torch.autograd.grad((value.float() * weight).sum(), inputs))


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).mul_(0.5).requires_grad_() for s in shapes]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("empty", [False, True])
def test_grouped_products_are_those_of_each_expert(slots: int, empty: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    scores_KNE = torch.rand(K, N, E, generator=generator)
    scores_KNE[0, :, 1] = -1  # of the first proxy, nobody takes this expert first
    indices_KNS = scores_KNE.topk(slots, -1).indices
    if empty:
        indices_KNS[:, ::3, -1] = -1
        indices_KNS[0, 5] = -1
    inputs = _draw((K * N, D), (K * N, slots), (K * E, D, 2 * F), (K * E, F, D))
    expected = run_experts(*inputs, plan(indices_KNS, E))
    found = grouped.run_experts(*inputs, grouped.sort(indices_KNS, E))
    # gates of empty slots are 0 in a `Routing`; here they are not, and must not matter
    used_MS = (indices_KNS >= 0).flatten(0, 1)
    reference = expected
    if empty:
        masked = [inputs[0], torch.where(used_MS, inputs[1], 0.0), *inputs[2:]]
        reference = run_experts(*masked, plan(indices_KNS, E))
    assert torch.allclose(found, reference, atol=1e-6)
    for mine, theirs in zip(_gradients(found, inputs), _gradients(reference, inputs), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_rows_of_empty_slots_may_hold_anything() -> None:
    indices_KNS = torch.full((1, 8, 1), -1)
    indices_KNS[0, 0] = 1
    order = grouped.sort(indices_KNS, 2)
    assert order.ends_G.tolist() == [0, 1]
    assert order.row_MS[0].tolist() == [0]
    y_AD = torch.full((8, D), float("nan"))
    y_AD[0] = 1.0
    out_MD = grouped._combine(y_AD, order.row_MS, torch.ones(8, 1), order.used_MS)
    assert out_MD[0].tolist() == [1.0] * D
    assert not out_MD[1:].any()


def test_a_norm_by_autograd_is_the_one_by_hand() -> None:
    inputs = _draw((K, N, D), (K, N, D), (K, D))
    by_hand = norm.add_and_norm(*inputs, torch.float32)
    by_autograd = norm.by_autograd(*inputs, torch.float32)
    for mine, theirs in zip(by_autograd, by_hand, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    for mine, theirs in zip(
        _gradients(by_autograd[0] + 2 * by_autograd[1] + by_autograd[2], inputs),
        _gradients(by_hand[0] + 2 * by_hand[1] + by_hand[2], inputs),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_by_torchs_kernel_is_the_one_in_blocks(masked: bool) -> None:
    inputs = _draw((K, N, D), (K, D, 3 * D), (K, D, D))
    ids_KBT = torch.randint(4, (K, 2, N // 2), generator=torch.Generator().manual_seed(4))
    document_KBT = attention.documents(ids_KBT, end_of_text=0) if masked else None
    rotary = rotary_tables(N // 2, D // 2, 10_000.0, torch.device("cpu"), torch.float32)
    mask = None if document_KBT is None else attention.kernel_mask(document_KBT, torch.float32)
    by_kernel = attention.by_kernel(*inputs, *rotary, 2, mask)
    in_blocks = attention._Plain.apply(*inputs, *rotary, 2, document_KBT)
    assert torch.allclose(by_kernel, in_blocks, atol=1e-6)
    for mine, theirs in zip(
        _gradients(by_kernel, inputs), _gradients(in_blocks, inputs), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_loss_over_all_proxies_is_that_of_each(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "GPU_LOGITS", 7 * K * 40)  # chunks of seven rows and fewer
    inputs = _draw((K, N, D), (K, 40, D))
    generator = torch.Generator().manual_seed(2)
    targets_KN = torch.randint(40, (K, N), generator=generator)
    mask_KN = torch.rand(K, N, generator=generator) < 0.7 if masked else None
    each_K = losses.cross_entropy(*inputs, targets_KN, mask_KN)
    all_K = losses._CrossEntropyOfAll.apply(*inputs, targets_KN, mask_KN)
    assert torch.allclose(all_K, each_K, atol=1e-5)
    for mine, theirs in zip(_gradients(all_K, inputs), _gradients(each_K, inputs), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
