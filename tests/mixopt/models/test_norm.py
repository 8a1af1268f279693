import pytest
import torch
import torch.nn.functional as F

from mixopt.models.norm import NORM_EPSILON, add_and_norm
from mixopt.models.team import team


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("added", [True, False])
def test_it_is_the_norm_of_the_sum_and_so_are_its_gradients(added: bool, threads: int) -> None:
    random = torch.Generator().manual_seed(0)
    x, y, towards_s, towards_n = (torch.randn(2, 7, 6, generator=random) for _ in range(4))
    weight_KD = torch.rand(2, 6, generator=random) + 0.5
    inputs = [x, weight_KD, *([y] if added else [])]
    mine = [t.clone().requires_grad_() for t in inputs]
    plain = [t.clone().requires_grad_() for t in inputs]

    with team(threads):
        s, n, low = add_and_norm(mine[0], mine[2] if added else None, mine[1], torch.float32)
        # both copies of the normed stream are read, as a router and its experts do
        ((s * towards_s).sum() + (n * towards_n).sum() + 2 * (low * towards_n).sum()).backward()
    plain_s = plain[0] + plain[2] if added else plain[0]
    plain_n = F.rms_norm(plain_s, (6,), eps=NORM_EPSILON) * plain[1].unsqueeze(1)
    ((plain_s * towards_s).sum() + 3 * (plain_n * towards_n).sum()).backward()
    assert torch.allclose(s, plain_s)
    assert torch.allclose(n, plain_n, atol=1e-6)
    for own, expected in zip(mine, plain, strict=True):
        assert torch.allclose(own.grad, expected.grad, atol=1e-5)


def test_the_low_copy_brings_its_gradient_too() -> None:
    random = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 5, 8, generator=random) for _ in range(2))
    weight_KD = torch.ones(1, 8)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        stream, added = x.clone().requires_grad_(), y.clone().to(dtype).requires_grad_()
        _, n, low = add_and_norm(stream, added, weight_KD, dtype)
        assert low.dtype == dtype
        (n.square().sum() + (low.float() * x).sum()).backward()
        assert added.grad.dtype == dtype
        gradients.append(stream.grad)
    assert torch.allclose(*gradients, atol=0.05)
